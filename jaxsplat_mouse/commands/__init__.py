"""The commands: flags and printing. `python -m jaxsplat_mouse.NAME` runs `commands/NAME.py`."""
