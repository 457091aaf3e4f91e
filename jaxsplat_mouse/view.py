"""`python -m jaxsplat_mouse.view`: see `commands/view.py`."""

from jaxsplat_mouse.commands import console, view

if __name__ == "__main__":
  console.start(view)
