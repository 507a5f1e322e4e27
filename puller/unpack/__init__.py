"""From layers to files."""
