"""`python -m jaxsplat_mouse.convert`: see `commands/convert.py`."""

from jaxsplat_mouse.commands import console, convert

if __name__ == "__main__":
  console.start(convert)
