"""Splat PLY files in the layout of Kerbl et al. 2023, which the common viewers read.

One `vertex` element of float32, binary little-endian: x y z, nx ny nz (zeros), f_dc_0..2,
f_rest_0.. (channel-major: all coefficients of red, then green, then blue), opacity (logit),
scale_0.. (natural logarithm), rot_0..3 (w x y z). Discs (Huang et al. 2024) have scale_0 and
scale_1 only; some viewers insist on a third scale, see `thin_ellipsoids`.
"""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any

import numpy as np
import plyfile

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, Gaussians3D
from jaxsplat_mouse.io import atomic

_REST_COUNTS = (0, 9, 24, 45)  # three channels of K - 1 coefficients, degree 0 to 3
_THINNEST = 1e-6  # world units


def write_gaussians(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
  """Writes splats to `path` in one step; `read_gaussians` returns the same float32 values.

  Raises:
    ValueError: there are no splats, shapes do not match, or values are not finite.
    OSError: the file cannot be written; an existing one stays as it was.
  """
  columns = _columns(gaussians)
  table = np.concatenate([block for _, block in columns], 1)
  names = [name for group, _ in columns for name in group]
  if len(table) == 0:
    raise ValueError(f"{path}: no splats to write")
  if not np.isfinite(table).all():
    row, column = np.argwhere(~np.isfinite(table))[0]
    raise ValueError(f"{path}: splat {row}: {names[column]} is {table[row, column]}, not finite")
  vertices = np.ascontiguousarray(table).view([(name, "<f4") for name in names])[:, 0]
  buffer = io.BytesIO()
  element = plyfile.PlyElement.describe(vertices, "vertex")
  plyfile.PlyData([element], byte_order="<").write(buffer)
  atomic.write_bytes(path, buffer.getvalue())


def read_gaussians(path: str | os.PathLike[str]) -> Gaussians:
  """Reads a splat PLY; two scales make `Gaussians2D`, three `Gaussians3D`, of numpy float32.

  Raises:
    InputError: there is no such file, it is not a splat PLY, properties are missing or of a wrong
      number, or values are not finite.
  """
  path = pathlib.Path(path)
  vertices = _read_vertices(path)
  names = set(vertices.dtype.names or ())
  rest = _count(names, "f_rest_")
  scales = _count(names, "scale_")
  if rest not in _REST_COUNTS:
    raise InputError(path, "f_rest_*", f"{rest} properties; expected one of {_REST_COUNTS}")
  if scales not in (2, 3):
    raise InputError(path, "scale_*", f"{scales} properties; expected 3 (3DGS) or 2 (2DGS)")
  groups = _groups(rest // 3 + 1, scales)
  means, _, dc, higher, logits, log_scales, quats = (
    _block(path, vertices, group) for group in groups
  )
  higher = higher.reshape(len(means), 3, rest // 3).transpose(0, 2, 1)
  fields: dict[str, Any] = {
    "means": means,
    "log_scales": log_scales,
    "quats": quats,
    "logit_opacities": logits[:, 0],
    "sh": np.ascontiguousarray(np.concatenate([dc[:, None], higher], 1)),
  }
  return Gaussians2D(**fields) if scales == 2 else Gaussians3D(**fields)


def thin_ellipsoids(gaussians: Gaussians2D) -> Gaussians3D:
  """Converts discs to ellipsoids of nearly no thickness, for viewers that need three scales."""
  log_scales = np.asarray(gaussians.log_scales, np.float32)
  thin = np.full((len(log_scales), 1), np.log(_THINNEST), np.float32)
  return Gaussians3D(
    means=gaussians.means,
    log_scales=np.concatenate([log_scales, thin], 1),
    quats=gaussians.quats,
    logit_opacities=gaussians.logit_opacities,
    sh=gaussians.sh,
  )


def _groups(coefficients: int, scales: int) -> list[list[str]]:
  """Returns the property names of each block of columns, in the order of the file."""
  numbered = lambda stem, count: [f"{stem}{i}" for i in range(count)]
  return [
    ["x", "y", "z"],
    ["nx", "ny", "nz"],
    numbered("f_dc_", 3),
    numbered("f_rest_", 3 * (coefficients - 1)),
    ["opacity"],
    numbered("scale_", scales),
    numbered("rot_", 4),
  ]


def _columns(gaussians: Gaussians) -> list[tuple[list[str], np.ndarray]]:
  """Returns blocks of float32 columns (N, C) with their property names; raises ValueError."""
  means, log_scales, quats, logits, sh = (
    np.asarray(value, np.float32)
    for value in (
      gaussians.means,
      gaussians.log_scales,
      gaussians.quats,
      gaussians.logit_opacities,
      gaussians.sh,
    )
  )
  n, scales = len(means), 2 if isinstance(gaussians, Gaussians2D) else 3
  shapes = [x.shape for x in (means, log_scales, quats, logits)]
  if shapes != [(n, 3), (n, scales), (n, 4), (n,)] or sh.shape not in [
    (n, k, 3) for k in (1, 4, 9, 16)
  ]:
    raise ValueError(f"splats of mismatched shapes: {shapes}, sh {sh.shape}")
  higher = sh[:, 1:].transpose(0, 2, 1).reshape(n, 3 * (sh.shape[1] - 1))
  blocks = [means, np.zeros_like(means), sh[:, 0], higher, logits[:, None], log_scales, quats]
  return list(zip(_groups(sh.shape[1], scales), blocks, strict=True))


def _read_vertices(path: pathlib.Path) -> np.ndarray:
  """Returns the `vertex` element (N,) as a structured array."""
  if not path.is_file():
    raise InputError(path, "", "no such file; expected a splat PLY")
  try:
    with open(path, "rb") as file:
      if file.read(3) != b"ply":
        raise InputError(path, "", "not a PLY file; expected a splat PLY")
      file.seek(0)
      data = plyfile.PlyData.read(file, mmap="r")
  except InputError:
    raise
  except Exception as error:  # a broken header or body raises many types
    raise InputError(
      path, "", f"broken PLY ({reason(error)}); expected a whole splat PLY"
    ) from None
  if "vertex" not in data:
    raise InputError(path, "vertex", "no such element; expected a splat PLY")
  vertices = data["vertex"].data
  if len(vertices) == 0:
    raise InputError(path, "vertex", "0 splats; expected at least one")
  return vertices


def _count(names: set[str], stem: str) -> int:
  return sum(name.startswith(stem) for name in names)


def _block(path: pathlib.Path, vertices: np.ndarray, group: list[str]) -> np.ndarray:
  """Returns the columns of one block, float32 (N, len(group)); normals may be missing."""
  if group[:1] == ["nx"]:
    return np.zeros((len(vertices), 3), np.float32)
  block = np.zeros((len(vertices), len(group)), np.float32)
  for i, name in enumerate(group):
    if name not in (vertices.dtype.names or ()):
      raise InputError(path, name, "no such property; expected the layout of a splat PLY")
    if vertices.dtype[name].kind not in "fiu":
      raise InputError(path, name, "a list; expected a float property")
    block[:, i] = vertices[name]
  if not np.isfinite(block).all():
    row, column = np.argwhere(~np.isfinite(block))[0]
    problem = f"{block[row, column]} in splat {row}; expected finite numbers"
    raise InputError(path, group[column], problem)
  return block
