"""Proves that a folder is a FaceLift dataset: `python -m jaxsplat_mouse.validate --help`.

This package shares no code with the writer, not even the name of a file: what it proves must not
rest on what it checks.
"""

from __future__ import annotations

from jaxsplat_mouse.validate.dataset import Report, check, relocate
from jaxsplat_mouse.validate.geometry import Rules
from jaxsplat_mouse.validate.scene import check_scene

__all__ = ["Report", "Rules", "check", "check_scene", "relocate"]
