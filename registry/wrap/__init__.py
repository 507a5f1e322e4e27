"""Wrappers around a Registry."""
