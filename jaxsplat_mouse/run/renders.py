"""Rendering for files: a fixed number of cameras at a time, one program per image size.

Gaussians are padded with invisible ones to a multiple of `_BUCKET`, so that scenes with different
counts share one compilation; what is rendered from a fit and from its PLY is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxsplat_mouse import density
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset.writer import straight_levels
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.rendering import RenderOutput, default_capacity, render_views
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.visual_hull.allowed import allowed_points

_BUCKET = 4096
# Pixels of all cameras of one call: bounds the memory of a dataset render.
_PIXELS_AT_ONCE = {"cpu": 1 << 20}
_PIXELS_ON_ACCELERATORS = 1 << 23
ORBIT_MAPS = ("rgb", "alpha", "depth")
INPUT_MAPS = ("rgba", "depth", "normal")
_INVISIBLE = -30.0  # logit of an opacity that no renderer shows
_MOST_AT_ONCE = 32
_MAX_DOUBLINGS = 6


def pad_gaussians(gaussians: Gaussians) -> Gaussians:
  """The Gaussians and invisible copies of the first, up to a multiple of 4096."""
  count = len(gaussians.means)
  missing = -count % _BUCKET
  padded = jax.tree.map(
    lambda x: np.concatenate([np.asarray(x), np.repeat(np.asarray(x)[:1], missing, 0)]), gaussians
  )
  padded.logit_opacities[count:] = _INVISIBLE
  return padded


def drop_invisible(gaussians: Gaussians, alive: np.ndarray) -> Gaussians:
  """The live Gaussians (N,) bool that a renderer shows: opacity of at least 1/255."""
  shown = np.asarray(alive) & (np.asarray(gaussians.logit_opacities) >= -np.log(254.0))
  if not shown.any():
    shown[np.argmax(gaussians.logit_opacities)] = True
  return jax.tree.map(lambda x: np.asarray(x)[shown], gaussians)


def credible(gaussians: Gaussians, alive: np.ndarray, scene: Scene) -> np.ndarray:
  """Which live Gaussians (N,) bool may be the animal's, for a fit of one scene.

  Not those that stand apart from all others, that silhouettes refuse, or that hardly any frame has:
  nothing taught them, and they show in views from elsewhere.
  """
  shown = np.asarray(alive) & (np.asarray(gaussians.logit_opacities) >= -np.log(254.0))
  return shown & np.asarray(_credible(gaussians, jnp.asarray(shown), scene))


@jax.jit
def _credible(gaussians: Gaussians, shown: jax.Array, scene: Scene) -> jax.Array:
  return allowed_points(scene, jnp.asarray(gaussians.means)) & ~density.stray(gaussians, shown)


@functools.partial(jax.jit, static_argnames="capacity")
def _render_views(
  gaussians: Gaussians, cameras: Cameras, filter_width: float | None, capacity: int
) -> tuple[RenderOutput, jax.Array]:
  """Renders, and () how many splat-tile pairs of a view found no room."""
  output = render_views(gaussians, cameras, filter_width=filter_width, capacity=capacity)
  return output, output.overflow.max()


_render = Program(_render_views, static=(3,))


@functools.partial(jax.jit, static_argnames="count")
def _first_views(output: RenderOutput, count: int) -> RenderOutput:
  return jax.tree.map(lambda leaf: leaf[:count], output)


class Renders:
  """Renders of V cameras over black, on their way to the host a part of the cameras at a time.

  An accelerator is given all of them at once and nothing waits before they are asked for. On a CPU,
  whose memory and cores are the host's own, a part is rendered when it is asked for.

  Attributes:
    nbytes: device memory of what was on its way at first.
  """

  def __init__(
    self,
    gaussians: Gaussians,
    cameras: Cameras,
    filter_width: float | None,
    reduce: Callable[[RenderOutput], Any],
  ):
    """Starts.

    Args:
      gaussians: (N,).
      cameras: (V,) of one image size.
      filter_width: see `render`.
      reduce: what of a render travels to the host, a pytree of arrays (V, ...).
    """
    self._gaussians = jax.device_put(pad_gaussians(gaussians))
    self._cameras, self._filter_width, self._reduce = cameras, filter_width, reduce
    self._capacity = default_capacity(len(self._gaussians.means))
    self._at_once = _at_once(cameras)
    self._started: dict[int, tuple[Any, jax.Array]] = {}
    if devices.is_accelerator():
      self._started = {first: self._start(first) for first in self._firsts()}
    # Taken now: another thread may be fetching by the time that it is asked for.
    self.nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._started))

  def _firsts(self) -> range:
    return range(0, len(self._cameras), self._at_once)

  def _start(self, first: int) -> tuple[Any, jax.Array]:
    """What is wanted of a part's renders, and `_render_views`' overflow."""
    index = np.minimum(np.arange(first, first + self._at_once), len(self._cameras) - 1)
    part = select(self._cameras, index)
    output, overflow = _render(self._gaussians, part, self._filter_width, self._capacity)
    count = len(self._cameras) - first
    if count < self._at_once:  # What only fills up the program's cameras need not travel.
      output = _first_views(output, count)
    return self._reduce(output), overflow

  def __iter__(self) -> Iterator[Any]:
    """Yields what is wanted of consecutive cameras, as NumPy.

    What found no room is rendered again with twice the room, and logged.
    """
    for first in self._firsts():
      known = first in self._started
      wanted, overflow = self._started.pop(first) if known else self._start(first)
      for _ in range(_MAX_DOUBLINGS):
        dropped = int(overflow)
        if dropped == 0:
          break
        self._capacity *= 2
        logging.info(
          "%d splat-tile pairs found no room; capacity is now %d", dropped, self._capacity
        )
        wanted, overflow = self._start(first)
      else:
        logging.warning("%d splat-tile pairs left out of a render", int(overflow))
      yield jax.tree.map(np.asarray, wanted)


def render_in_parts(
  gaussians: Gaussians,
  cameras: Cameras,
  filter_width: float | None = None,
  fields: Sequence[str] = ("rgb", "alpha"),
) -> Iterator[dict[str, np.ndarray]]:
  """Renders V cameras over black, a few at a time.

  Args:
    gaussians: (N,).
    cameras: (V,) of one image size.
    filter_width: see `render`.
    fields: which fields of `RenderOutput` are brought to the host.

  Yields:
    those fields of consecutive cameras, (n, H, W, ...).
  """
  yield from Renders(
    gaussians,
    cameras,
    filter_width,
    lambda output: {name: getattr(output, name) for name in fields},
  )


def _at_once(cameras: Cameras) -> int:
  """Cameras of one call; not fewer for fewer cameras: that would be another program to compile."""
  pixels = _PIXELS_AT_ONCE.get(jax.default_backend(), _PIXELS_ON_ACCELERATORS)
  return min(_MOST_AT_ONCE, max(1, pixels // (cameras.width * cameras.height)))


def compile_render(compiler: BackgroundCompiler, gaussians: Gaussians, cameras: Cameras) -> None:
  """Has compiled what renders with a filter run: about as many Gaussians, cameras of this size."""
  padded, part = pad_gaussians(gaussians), select(cameras, np.zeros(_at_once(cameras), np.int64))
  compiler.start(_render, padded, part, 0.0, default_capacity(len(padded.means)))


@jax.jit
def _encode(rgb: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
  """`dataset.to_rgba8` on the device: (V, H, W, 4) uint8, and (V,) bool whether all is finite.

  A fifth of the bytes of floats go to the host.
  """
  rgba = straight_levels(rgb, alpha, jnp).astype(jnp.uint8)
  return rgba, jnp.isfinite(rgb).all((1, 2, 3)) & jnp.isfinite(alpha).all((1, 2))


@functools.partial(jax.jit, static_argnames="stride")
def _thin(output: RenderOutput, stride: int) -> dict[str, jax.Array]:
  """`ORBIT_MAPS` of every `stride`-th pixel."""
  return {name: getattr(output, name)[:, ::stride, ::stride] for name in ORBIT_MAPS}


@jax.jit
def _input_maps(output: RenderOutput) -> dict[str, jax.Array]:
  """`INPUT_MAPS`, small: for scores and pictures."""
  rgba, finite = _encode(output.rgb, output.alpha)
  normal = output.normal.astype(jnp.float16)
  return {"rgba": rgba, "finite": finite, "depth": output.depth, "normal": normal}


def start_inputs(gaussians: Gaussians, cameras: Cameras, filter_width: float | None) -> Renders:
  """Renders as `fetch_inputs` takes them, of V cameras of one size."""
  return Renders(gaussians, cameras, filter_width, _input_maps)


def fetch_inputs(renders: Renders) -> dict[str, np.ndarray]:
  """`INPUT_MAPS` (V, H, W, ...): straight 8-bit RGBA, depth, and normals in half precision.

  Raises:
    ValueError: the renders are not finite.
  """
  parts = list(renders)
  maps = {name: np.concatenate([part[name] for part in parts]) for name in (*INPUT_MAPS, "finite")}
  _checked(maps["rgba"], maps.pop("finite"))
  return maps


def _checked(rgba: np.ndarray, finite: np.ndarray) -> np.ndarray:
  if not finite.all():
    raise ValueError("renders with values that are not finite cannot be stored as 8-bit images")
  return rgba


def render_rgba(
  gaussians: Gaussians, cameras: Cameras, filter_width: float | None = None
) -> np.ndarray:
  """Straight 8-bit RGBA (V, H, W, 4) of V cameras of one image size; see `render` for the filter.

  Raises:
    ValueError: the renders are not finite.
  """
  encode = lambda output: _encode(output.rgb, output.alpha)
  parts = Renders(gaussians, cameras, filter_width, encode)
  return np.concatenate([_checked(*part) for part in parts])


def start_orbit(
  gaussians: Gaussians, cameras: Cameras, filter_width: float | None, stride: int
) -> Renders:
  """Renders as `fetch_orbit` takes them, of V cameras of one size; see there for `stride`."""
  return Renders(
    gaussians,
    cameras,
    filter_width,
    lambda output: (_encode(output.rgb, output.alpha), _thin(output, stride)),
  )


def fetch_orbit(renders: Renders, step: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Straight 8-bit RGBA (V, H, W, 4), and a few small maps for scores.

  Args:
    renders: as `start_orbit` gave them with the pixels of a view from one of a map to the next.
    step: views from one map to the next.

  Returns:
    the images, and `rgb`, `alpha`, `depth` over black of every `stride`-th pixel of every `step`-th
    view, float32.

  Raises:
    ValueError: the renders are not finite.
  """
  parts = list(renders)
  maps = {name: np.concatenate([part[name] for _, part in parts])[::step] for name in ORBIT_MAPS}
  return np.concatenate([_checked(*images) for images, _ in parts]), maps


def render_groups(
  gaussians: Gaussians,
  groups: Sequence[tuple[np.ndarray, Cameras]],
  filter_width: float | None = None,
) -> list[np.ndarray]:
  """As `render_rgba` for cameras of several image sizes.

  Args:
    gaussians: (N,).
    groups: view indices and cameras of each image size, as `CameraFile.groups` gives them.
    filter_width: see `render`.

  Returns:
    one (H, W, 4) image per view, in the order of the indices.
  """
  images: dict[int, np.ndarray] = {}
  for index, cameras in groups:
    rgba = render_rgba(gaussians, cameras, filter_width)
    images.update(zip(index.tolist(), rgba, strict=True))
  return [images[i] for i in range(len(images))]


def select(cameras: Cameras, index: np.ndarray | slice) -> Cameras:
  """Some of V cameras, as NumPy."""
  return dataclasses.replace(
    cameras,
    world_to_camera=np.asarray(cameras.world_to_camera)[index],
    intrinsics=np.asarray(cameras.intrinsics)[index],
  )
