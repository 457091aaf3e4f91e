"""The configurations that the package contains; an installation has them as jaxsplat_mouse.configs.

Each file has `get_config(variant)`; `--config=NAME:VARIANT` on the command line names both.
"""
