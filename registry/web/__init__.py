"""The distribution API over HTTP."""
