"""`python -m jaxsplat_mouse.main`: see `commands/main.py`."""

from jaxsplat_mouse.commands import console, main

if __name__ == "__main__":
  console.start(main)
