"""`python -m jaxsplat_mouse.train`: see `commands/train.py`."""

from jaxsplat_mouse.commands import console, train

if __name__ == "__main__":
  console.start(train)
