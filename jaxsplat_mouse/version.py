"""The version of the package; nothing is imported for it."""

__version__ = "0.1.0"
