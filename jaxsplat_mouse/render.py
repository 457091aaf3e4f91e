"""`python -m jaxsplat_mouse.render`: see `commands/render.py`."""

from jaxsplat_mouse.commands import console, render

if __name__ == "__main__":
  console.start(render)
