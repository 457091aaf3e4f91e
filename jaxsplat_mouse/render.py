"""`python -m jaxsplat_mouse.render`: see `commands/render.py`."""

from jaxsplat_mouse.commands import render

if __name__ == "__main__":
  render.start()
