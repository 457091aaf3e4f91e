"""`python -m jaxsplat_mouse.mesh`: see `commands/mesh.py`."""

from jaxsplat_mouse.commands import console, mesh

if __name__ == "__main__":
  console.start(mesh)
