"""`python -m jaxsplat_mouse.manifest`: see `commands/manifest.py`."""

from jaxsplat_mouse.commands import console, manifest

if __name__ == "__main__":
  console.start(manifest)
