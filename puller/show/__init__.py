"""What people and programs see of the client: lines, bars, JSON. The library below never prints."""
