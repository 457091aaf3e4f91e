"""Proves that a folder is a FaceLift dataset: `python -m jaxsplat_mouse.validate --help`.

This package shares no code with the writer, not even the name of a file: a proof must not rest on
what it checks.
"""
