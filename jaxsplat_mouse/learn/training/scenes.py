"""Scenes of a dataset in memory, as a training step indexes them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from PIL import Image

from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.dataset.lists import read_list
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.scene import Scene


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingScenes:
  """N scenes of at most V views, all images S pixels square; a pytree of arrays.

  Attributes:
    rgba: (N, V, S, S, 4) uint8, straight colour.
    world_to_camera: (N, V, 4, 4) float32.
    intrinsics: (N, V, 4) float32, pixels of the S x S images.
    counts: (N,) int32, views of each scene; what lies beyond is padding.
  """

  rgba: np.ndarray
  world_to_camera: np.ndarray
  intrinsics: np.ndarray
  counts: np.ndarray

  def __len__(self) -> int:
    """Returns N."""
    return len(self.counts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnreadableScene:
  """A scene that was left out, and why."""

  folder: pathlib.Path
  problem: str


def read_scenes(
  path: pathlib.Path, image_size: int, threads: int = 8
) -> tuple[TrainingScenes, tuple[UnreadableScene, ...]]:
  """Reads all scenes of a list, PNGs decoded in threads.

  Args:
    path: a list, one scene folder a line.
    image_size: S.
    threads: that decode.

  Returns:
    The scenes in the list's order, and those that cannot be read.

  Raises:
    InputError: the list is broken, or none of its scenes can be read.
  """
  read = functools.partial(_read_or_report, image_size=image_size)
  with ThreadPoolExecutor(threads) as pool:
    results = list(pool.map(read, read_list(path)))
  found = [r for r in results if isinstance(r, TrainingScenes)]
  problems = tuple(r for r in results if isinstance(r, UnreadableScene))
  if not found:
    problem = f"none of {len(problems)} scenes can be read; the first: {problems[0].problem}"
    raise InputError(path, "", problem)
  return concatenate(found), problems


def _read_or_report(folder: pathlib.Path, image_size: int) -> TrainingScenes | UnreadableScene:
  try:
    return from_scene(facelift.read_scene(folder).scene, image_size)
  except InputError as error:
    return UnreadableScene(folder=folder, problem=str(error))


def from_scene(scene: Scene, image_size: int) -> TrainingScenes:
  """Returns one scene, its images padded to squares and resampled.

  Args:
    scene: V views of any size, alphas and colours in [0, 1].
    image_size: S.
  """
  real = np.flatnonzero(np.asarray(scene.view_mask))
  images, alphas = np.asarray(scene.images), np.asarray(scene.alphas)
  intrinsics = np.asarray(scene.cameras.intrinsics, np.float32)
  rgba, scaled = [], []
  for view in real:
    x0, y0, x1, y1 = (round(float(edge)) for edge in scene.frames[view])
    part = np.s_[view, y0:y1, x0:x1]
    side = max(x1 - x0, y1 - y0)
    rgba.append(_square(images[part], alphas[part], side, image_size))
    k = intrinsics[view] - np.array([0, 0, x0, y0], np.float32)
    scaled.append(k * (image_size / side))
  return TrainingScenes(
    rgba=np.stack(rgba)[None],
    world_to_camera=np.asarray(scene.cameras.world_to_camera, np.float32)[real][None],
    intrinsics=np.stack(scaled)[None].astype(np.float32),
    counts=np.array([len(real)], np.int32),
  )


def _square(colors: np.ndarray, alphas: np.ndarray, side: int, size: int) -> np.ndarray:
  """Pads a view (h, w) to `side`, at the right and bottom, and resamples it: (size, size, 4) uint8.

  Colour is resampled premultiplied: what lies under alpha 0 has none.
  """
  channels = np.zeros((side, side, 4), np.float32)
  channels[: alphas.shape[0], : alphas.shape[1], :3] = colors * alphas[..., None]
  channels[: alphas.shape[0], : alphas.shape[1], 3] = alphas
  if side != size:
    filter_ = Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS
    planes = [
      np.asarray(Image.fromarray(channels[..., k]).resize((size, size), filter_)) for k in range(4)
    ]
    channels = np.stack(planes, -1).clip(0.0, 1.0)
  alpha = channels[..., 3:]
  straight = np.divide(
    channels[..., :3], alpha, out=np.zeros_like(channels[..., :3]), where=alpha > 0
  )
  levels = np.round(255 * np.concatenate([straight.clip(0, 1), alpha], -1)).astype(np.uint8)
  levels[levels[..., 3] == 0] = 0
  return levels


def concatenate(parts: Sequence[TrainingScenes]) -> TrainingScenes:
  """Joins scenes; those with fewer views are padded."""
  views = max(part.rgba.shape[1] for part in parts)

  def join(arrays: Iterable[np.ndarray]) -> np.ndarray:
    wide = [np.pad(a, [(0, 0), (0, views - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in arrays]
    return np.concatenate(wide)

  return TrainingScenes(
    rgba=join(part.rgba for part in parts),
    world_to_camera=join(part.world_to_camera for part in parts),
    intrinsics=join(part.intrinsics for part in parts),
    counts=np.concatenate([part.counts for part in parts]),
  )
