"""The server's core: the Registry protocol over an ObjectStore."""
