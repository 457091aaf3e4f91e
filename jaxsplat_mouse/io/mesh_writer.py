"""Writes triangle meshes: PLY, OBJ and GLB, through trimesh."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.meshing import Mesh


def write_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
  """Writes a mesh with vertex colours; the suffix names the format (`.ply`, `.obj`, `.glb`).

  Raises:
    InputError: trimesh is not installed, or does not write that format.
    OSError: the file cannot be written.
  """
  try:
    import trimesh
  except ImportError:
    problem = "writing meshes takes trimesh: pip install 'jaxsplat-mouse[mesh]'"
    raise InputError(path, "", problem) from None
  colors = np.concatenate([mesh.colors, np.ones_like(mesh.colors[:, :1])], -1)
  solid = trimesh.Trimesh(
    vertices=mesh.vertices,
    faces=mesh.faces,
    vertex_normals=mesh.normals,
    vertex_colors=(colors * 255 + 0.5).astype(np.uint8),
    process=False,
  )
  try:
    solid.export(pathlib.Path(path))
  except (ValueError, KeyError, NotImplementedError):
    raise InputError(path, "", "unknown kind of mesh; expected .ply, .obj or .glb") from None
