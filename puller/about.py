"""Which Moorage this is; ``pyproject.toml`` says the same. Asking the installed package would cost every run 20 ms."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
