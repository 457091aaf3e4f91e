"""Built-in training scenes: mice and random solids, traced at FaceLift's cameras.

Solids stand in for Objaverse, so that the mixture of a real training can be tried without any
download.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.random_solids import make_solid, render_solid

ORBIT = 32  # FaceLift's views
FIRST_HELD_OUT = 100_000  # seeds from here on are for tests


def _mouse(seed: int, cameras: Cameras) -> np.ndarray:
  return render_truth(make_mouse(seed), cameras).rgba


def _solid(seed: int, cameras: Cameras) -> np.ndarray:
  return render_solid(make_solid(seed), cameras).rgba


_RENDERERS: dict[str, Callable[[int, Cameras], np.ndarray]] = {"mice": _mouse, "solids": _solid}
KINDS = tuple(_RENDERERS)


def make_scenes(
  kind: str,
  seeds: Sequence[int],
  image_size: int,
  views: int = ORBIT,
  processes: int | None = None,
) -> TrainingScenes:
  """Traces scenes on the CPU, one process a core.

  Args:
    kind: `mice` or `solids`.
    seeds: one of each scene; those from `FIRST_HELD_OUT` on are for tests.
    image_size: S.
    views: of the orbit's 32, drawn for each scene by its seed; all by default.
    processes: by default the machine's cores.

  Raises:
    ValueError: `kind` is unknown, or there are not so many views.
  """
  if kind not in _RENDERERS:
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
  if not 0 < views <= ORBIT:
    raise ValueError(f"views: expected 1 to {ORBIT}, got {views}")
  render = functools.partial(_render, kind, image_size=image_size, views=views)
  count = min(processes or os.cpu_count() or 1, len(seeds))
  if count <= 1:
    images = [render(seed) for seed in seeds]
  else:
    # Tracing is for CPUs, and a process must not inherit this one's device.
    with _cpu_only(), ProcessPoolExecutor(count, get_context("spawn")) as pool:
      images = list(pool.map(render, seeds))
  orbit = generate_camera_poses(ORBIT, image_size=image_size)
  chosen = np.stack([_choose_views(seed, views) for seed in seeds])
  return TrainingScenes(
    rgba=np.stack(images),
    world_to_camera=np.asarray(orbit.world_to_camera, np.float32)[chosen],
    intrinsics=np.asarray(orbit.intrinsics, np.float32)[chosen],
    counts=np.full(len(seeds), views, np.int32),
  )


def _choose_views(seed: int, views: int) -> np.ndarray:
  """The views (views,) of the orbit that the scene of a seed has, ascending."""
  return np.sort(np.random.default_rng([seed, 20]).permutation(ORBIT)[:views])


def _render(kind: str, seed: int, *, image_size: int, views: int) -> np.ndarray:
  """Renders one scene: (views, S, S, 4) uint8."""
  orbit = generate_camera_poses(ORBIT, image_size=image_size)
  chosen = _choose_views(seed, views)
  cameras = dataclasses.replace(
    orbit,
    world_to_camera=np.asarray(orbit.world_to_camera)[chosen],
    intrinsics=np.asarray(orbit.intrinsics)[chosen],
  )
  return np.round(255 * _RENDERERS[kind](seed, cameras)).astype(np.uint8)


@contextmanager
def _cpu_only() -> Iterator[None]:
  """Processes started inside run JAX on the CPU."""
  before = os.environ.get("JAX_PLATFORMS")
  os.environ["JAX_PLATFORMS"] = "cpu"
  try:
    yield
  finally:
    if before is None:
      del os.environ["JAX_PLATFORMS"]
    else:
      os.environ["JAX_PLATFORMS"] = before
