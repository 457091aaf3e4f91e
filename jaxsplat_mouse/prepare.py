"""`python -m jaxsplat_mouse.prepare`: see `commands/prepare.py`."""

from jaxsplat_mouse.commands import console, prepare

if __name__ == "__main__":
  console.start(prepare)
