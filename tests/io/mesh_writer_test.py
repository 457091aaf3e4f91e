"""Written meshes read back with their vertices and colours."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import mesh_writer
from jaxsplat_mouse.meshing import Mesh

trimesh = pytest.importorskip("trimesh")


def make_octahedron() -> Mesh:
  corners = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
  faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
  return Mesh(
    vertices=[0.2, 0.3, 0.5] * corners,
    faces=np.array(faces),
    normals=corners,
    colors=np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3),
  )


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_written_meshes_read_back(tmp_path: pathlib.Path, suffix: str) -> None:
  mesh = make_octahedron()
  path = tmp_path / f"mouse.{suffix}"
  mesh_writer.write_mesh(path, mesh)
  read = trimesh.load(path, process=False, force="mesh")
  np.testing.assert_allclose(read.bounds, [[-0.2, -0.3, -0.5], [0.2, 0.3, 0.5]], atol=1e-4)
  colors = np.asarray(read.visual.vertex_colors)[:, :3] / 255
  assert np.abs(colors.mean(0) - mesh.colors.mean(0)).max() < 0.02


def test_an_unknown_suffix_is_named(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match="unknown kind of mesh"):
    mesh_writer.write_mesh(tmp_path / "mouse.docx", make_octahedron())
