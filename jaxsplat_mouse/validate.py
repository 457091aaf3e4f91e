"""`python -m jaxsplat_mouse.validate`: see `commands/validate.py`."""

from jaxsplat_mouse.commands import console, validate

if __name__ == "__main__":
  console.start(validate)
