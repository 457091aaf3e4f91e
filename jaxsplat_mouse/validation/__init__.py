"""Proves that a folder is a FaceLift dataset: `python -m jaxsplat_mouse.validate --help`.

This package shares no code with the writer, not even the name of a file: what it proves must not
rest on what it checks.
"""
