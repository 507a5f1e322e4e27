"""Bytes under keys: the storage port and its implementations. Knows nothing of images."""
