"""The mesh command, from a splat PLY to a mesh file."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.gaussians import Gaussians2D
from jaxsplat_mouse.io import ply

pytest.importorskip("skimage")


def _sphere_of_discs(count: int = 3000) -> Gaussians2D:
  keys = jax.random.split(jax.random.key(0), 2)
  normals = jax.random.normal(keys[0], (count, 3))
  normals /= jnp.linalg.norm(normals, axis=1, keepdims=True)
  # Half-way quaternion from +Z to the normal.
  half = normals + jnp.array([0.0, 0.0, 1.0])
  half /= jnp.linalg.norm(half, axis=1, keepdims=True)
  quats = jnp.stack([half[:, 2], -half[:, 1], half[:, 0], jnp.zeros(count)], -1)
  return Gaussians2D(
    means=0.5 * normals,
    log_scales=jnp.full((count, 2), np.log(0.04)),
    quats=quats,
    logit_opacities=jnp.full(count, 4.0),
    sh=jnp.zeros((count, 1, 3)),
  )


@pytest.mark.slow
def test_the_command_makes_a_mesh_of_a_fit(tmp_path):
  pytest.importorskip("trimesh")
  ply.write_gaussians(tmp_path / "splats.ply", _sphere_of_discs())
  target = tmp_path / "sphere.ply"
  command = [sys.executable, "-m", "jaxsplat_mouse.mesh", f"--gaussians={tmp_path / 'splats.ply'}"]
  done = subprocess.run(
    [*command, f"--output={target}", "--resolution=64"], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  import trimesh

  radius = np.linalg.norm(trimesh.load(target).vertices, axis=1)
  assert abs(np.median(radius) - 0.5) < 0.02
  assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
