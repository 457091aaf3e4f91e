"""A small rig with every trap in it, and writers of the files that real programs write of it."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse.capture.rig import Rig, project_points
from jaxsplat_mouse.errors import InputError

SIZE = (24, 18)  # width, height


def make_rig(views: int = 4, *, lens: bool = True) -> Rig:
  """Cameras on a ring around a point off the origin, held upright, z up, pixel centres at +0.5."""
  rng = np.random.default_rng(views)
  poses, matrices = [], []
  for i in range(views):
    angle = 2 * np.pi * i / views + 0.2
    center = np.array([40.0, 30.0, 20.0]) + 300 * np.array([np.cos(angle), np.sin(angle), 0.4])
    forward = np.array([40.0, 30.0, 20.0]) + rng.normal(size=3) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ center
    poses.append(pose)
    skew = 0.1 * (i - 1.5) if lens else 0.0
    matrices.append([[30.0 + i, skew, 12.5], [0.0, 31.0 + i, 8.5], [0.0, 0.0, 1.0]])
  distortion = rng.normal(size=(views, 5)) * [0.1, 0.3, 1e-3, 1e-3, 0.5]
  return Rig(
    names=tuple(f"Camera{i + 1}" for i in range(views)),
    matrices=np.array(matrices),
    world_to_camera=np.stack(poses),
    distortion=distortion if lens else np.zeros((views, 5)),
    sizes=np.tile(SIZE, (views, 1)),
    unit="mm",
  )


def same_rig(found: Rig, expected: Rig, tolerance: float = 1e-9) -> None:
  """Asserts that two rigs agree in all numbers."""
  for key in ("matrices", "world_to_camera", "distortion"):
    np.testing.assert_allclose(
      getattr(found, key), getattr(expected, key), atol=tolerance, err_msg=key
    )
  assert found.world_to_camera.dtype == np.float64


def refused(call: Callable[[], Any], path: str, field: str) -> str:
  """The problem that a call tells in one line, with a file and a field that contain these."""
  with pytest.raises(InputError) as caught:
    call()
  message = str(caught.value)
  assert "\n" not in message, message
  assert len(message) < 600, message
  assert path in caught.value.path, message
  assert field in caught.value.field, message
  return caught.value.problem


# -------------------------------------------------------------------------------------- pictures


def write_video(path: pathlib.Path, frames: int = 3) -> pathlib.Path:
  av = pytest.importorskip("av")
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=Fraction(30))
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    for i in range(frames):
      frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * i, np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def touch(path: pathlib.Path) -> pathlib.Path:
  """A file that is there and nothing more."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b"")
  return path


def write_image(path: pathlib.Path, size: tuple[int, int] = SIZE, mode: str = "RGBA"):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new(mode, size).save(path)
  return path


def write_huge_header(path: pathlib.Path, side: int = 20_000) -> pathlib.Path:
  """A PNG whose header claims side x side pixels and which holds none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
  data = b"\x89PNG\r\n\x1a\n"
  for body in (b"IHDR" + header, b"IDAT" + bytes(8), b"IEND"):
    data += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
  path.write_bytes(data)
  return path


# ---------------------------------------------------------------------------------- Label3D files


def as_matlab(rig: Rig, points: np.ndarray | None = None) -> dict[str, Any]:
  """What Label3D saves of a rig: row vectors, the origin of pixels half a pixel further in."""
  params = []
  for matrix, pose, lens in zip(rig.matrices, rig.world_to_camera, rig.distortion, strict=True):
    k = matrix.copy()
    k[:2, 2] -= 0.5
    params.append(
      {
        "K": k.T,
        "r": pose[:3, :3].T,
        "t": pose[None, :3, 3],
        "RDistort": lens[None, [0, 1, 4]],
        "TDistort": lens[None, 2:4],
      }
    )
  frames = np.arange(5)
  sync = [
    {
      "data_frame": frames[:, None].astype(np.uint16),
      "data_sampleID": (1 + 10 * frames)[:, None].astype(np.int32),
      "data_2d": np.zeros((5, 4), np.uint8),
      "data_3d": np.zeros((5, 6), np.uint8),
    }
    for _ in rig.names
  ]
  data: dict[str, Any] = {"camnames": list(rig.names), "params": params, "sync": sync}
  if points is not None:
    data["labelData"] = [
      {
        "data_2d": (project_points(rig, points)[i] - 0.5).reshape(2, -1),
        "data_3d": points.reshape(2, -1),
        "data_frame": np.array([[0, 3]], np.uint16),
        "data_sampleID": np.array([[1, 31]], np.int32),
      }
      for i in range(len(rig))
    ]
  return data


def label_points() -> np.ndarray:
  """(2 samples x 4 landmarks, 3)."""
  return np.random.default_rng(1).uniform([10, 0, 0], [70, 60, 40], (8, 3))


def write_mat(path: pathlib.Path, data: dict[str, Any], version: str = "5") -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  if version == "7.3":
    return _write_mat73(path, data)
  scipy_io = pytest.importorskip("scipy.io")
  scipy_io.savemat(path, {k: _cells(v) for k, v in data.items()}, do_compression=version == "7")
  return path


def _cells(value: Any) -> Any:
  """Lists as MATLAB's cells, a column, or a row where they hold text."""
  if not isinstance(value, list):
    return value
  cell = np.empty((len(value), 1), object)
  cell[:, 0] = value
  return cell.T if value and isinstance(value[0], str) else cell


def _write_mat73(path: pathlib.Path, data: dict[str, Any]) -> pathlib.Path:
  """MATLAB's own layout: classes as attributes, cells as references, text as uint16, arrays .T."""
  h5py = pytest.importorskip("h5py")
  with h5py.File(path, "w", userblock_size=512) as file:
    references = file.create_group("#refs#")

    def put(group: Any, key: str, value: Any) -> Any:
      if isinstance(value, dict):
        node = group.create_group(key)
        for name, entry in value.items():
          put(node, name, entry)
        kind = "struct"
      elif isinstance(value, str):
        node = group.create_dataset(key, data=np.array([[ord(c)] for c in value], np.uint16))
        kind = "char"
      elif isinstance(value, list):
        items = [put(references, f"a{len(references)}", v).ref for v in value]
        cell = np.array(items, h5py.ref_dtype).reshape(1, -1)
        node = group.create_dataset(key, data=cell, dtype=h5py.ref_dtype)
        kind = "cell"
      else:
        node = group.create_dataset(key, data=np.asarray(value).T)
        kind = {"float64": "double", "float32": "single"}.get(str(node.dtype), str(node.dtype))
      node.attrs["MATLAB_class"] = np.bytes_(kind)
      return node

    for key, value in data.items():
      put(file, key, value)
  with path.open("r+b") as raw:
    raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
  return path
