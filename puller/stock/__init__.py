"""What is in the store: looked at, named, taken out, checked."""
