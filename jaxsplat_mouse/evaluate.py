"""`python -m jaxsplat_mouse.evaluate`: see `commands/evaluate.py`."""

from jaxsplat_mouse.commands import console, evaluate

if __name__ == "__main__":
  console.start(evaluate)
