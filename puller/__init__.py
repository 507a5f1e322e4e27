"""The client: pulls, pushes, copies and unpacks images."""
