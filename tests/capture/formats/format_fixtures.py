"""What format tests share: a rig with every trap in it, short videos, content of Label3D files."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.capture.rig import Rig, project_points
from tests.io import file_fixtures

SIZE = (24, 18)  # width, height


def make_rig(views: int = 4, *, lens: bool = True) -> Rig:
  """Cameras on a ring around a point off the origin, held upright, z up, pixel centres at +0.5.

  Every camera has another lens, and the world's origin is no special place, so that each mistaken
  convention shows; around the origin, as in `recording_fixtures`, some would not.
  """
  rng = np.random.default_rng(views)
  target = np.array([40.0, 30.0, 20.0])
  poses, matrices = [], []
  for i in range(views):
    angle = 2 * np.pi * i / views + 0.2
    eye = target + 300 * np.array([np.cos(angle), np.sin(angle), 0.4])
    poses.append(look_at(eye, target + rng.normal(size=3)))
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


def write_video(path: pathlib.Path, frames: int = 3) -> pathlib.Path:
  """Writes a small video."""
  images = [np.full((32, 32), 40 * i, np.uint8) for i in range(frames)]
  return file_fixtures.write_video(path, images)


def write_image(
  path: pathlib.Path, size: tuple[int, int] = SIZE, mode: str = "RGBA"
) -> pathlib.Path:
  """Writes an image, by default of the rig's size."""
  return file_fixtures.write_image(path, size, mode)


def same_rig(found: Rig, expected: Rig, tolerance: float = 1e-9) -> None:
  """Asserts that two rigs agree in all numbers."""
  for key in ("matrices", "world_to_camera", "distortion"):
    np.testing.assert_allclose(
      getattr(found, key), getattr(expected, key), atol=tolerance, err_msg=key
    )
  assert found.world_to_camera.dtype == np.float64


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
