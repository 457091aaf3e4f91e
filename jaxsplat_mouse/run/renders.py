"""Renders images with few compiled programs, whatever the number of splats, cameras and pixels.

XLA compiles a program for every shape. So Gaussians are padded with invisible ones to a multiple of
`_GAUSSIANS_STEP`, images grow to a multiple of `_SIDE_STEP` pixels and are cut afterwards, and a
call renders a fixed number of cameras. A fit and its PLY give the same bytes.

A larger image has a wider frustum, to which `projection` clamps the slopes of splats. So a splat
that is centred far outside the right or lower border can differ slightly from a render at the exact
size.
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

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset.writer import straight_levels
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.rendering import RenderOutput, default_capacity, render_views
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program

_GAUSSIANS_STEP = 4096
_SIDE_STEP = 64  # pixels; a multiple of every tile size, so that padding moves no tile
_INVISIBLE = -30.0  # logit of an opacity that no renderer shows
# Pixels of all cameras of one call; they bound its memory.
_PIXELS_AT_ONCE = {"cpu": 1 << 20}
_PIXELS_ON_ACCELERATORS = 1 << 23
_MOST_AT_ONCE = 32
_MAX_DOUBLINGS = 6
ORBIT_MAPS = ("rgb", "alpha", "depth")
INPUT_MAPS = ("rgba", "depth", "normal")

Maps = dict[str, np.ndarray]


def pad_gaussians(gaussians: Gaussians) -> Gaussians:
  """Appends invisible copies of the first Gaussian up to a multiple of 4096 Gaussians."""
  count = len(gaussians.means)
  missing = -count % _GAUSSIANS_STEP
  padded = jax.tree.map(
    lambda x: np.concatenate([np.asarray(x), np.repeat(np.asarray(x)[:1], missing, 0)]), gaussians
  )
  padded.logit_opacities[count:] = _INVISIBLE
  return padded


def drop_invisible(gaussians: Gaussians, alive: np.ndarray) -> Gaussians:
  """Returns the live Gaussians (N,) bool that a renderer shows: opacity of at least 1/255."""
  shown = np.asarray(alive) & (np.asarray(gaussians.logit_opacities) >= -np.log(254.0))
  if not shown.any():
    shown[np.argmax(gaussians.logit_opacities)] = True
  return jax.tree.map(lambda x: np.asarray(x)[shown], gaussians)


def padded_image_size(width: int, height: int) -> tuple[int, int]:
  """Returns the width and height that an image of this size is rendered at, pixels."""
  return width + -width % _SIDE_STEP, height + -height % _SIDE_STEP


@functools.partial(jax.jit, static_argnames="capacity")
def _render_views(
  gaussians: Gaussians, cameras: Cameras, filter_width: float | None, capacity: int
) -> tuple[RenderOutput, jax.Array]:
  """Returns the renders, and () the largest number of splat-tile pairs that a view dropped."""
  output = render_views(gaussians, cameras, filter_width=filter_width, capacity=capacity)
  return output, output.overflow.max()


_render = Program(_render_views, static=(3,))


@functools.partial(jax.jit, static_argnames="count")
def _first_views(output: RenderOutput, count: int) -> RenderOutput:
  return jax.tree.map(lambda leaf: leaf[:count], output)


class Renders:
  """Renders V cameras over black and copies them to the host, some cameras at a time.

  An accelerator starts all of them at once and computes while the host does other work. On a CPU,
  which shares memory and cores with the host, each part is rendered when `parts` reaches it.

  Attributes:
    nbytes: device memory of the renders that were started.
  """

  def __init__(
    self,
    gaussians: Gaussians,
    cameras: Cameras,
    filter_width: float | None,
    reduce: Callable[[RenderOutput], Any],
  ):
    """Starts the renders on an accelerator.

    Args:
      gaussians: (N,).
      cameras: (V,) of one image size.
      filter_width: world units, see `rendering.render`.
      reduce: selects what is copied to the host; returns a pytree of arrays (V, ...).
    """
    width, height = padded_image_size(cameras.width, cameras.height)
    self._gaussians = jax.device_put(pad_gaussians(gaussians))
    self._cameras = jax.tree.map(
      np.asarray, dataclasses.replace(cameras, width=width, height=height)
    )
    self._filter_width, self._reduce = filter_width, reduce
    self._capacity = default_capacity(len(self._gaussians.means))
    self._at_once = _cameras_at_once(width, height)
    self._started: dict[int, tuple[Any, jax.Array]] = {}
    if devices.is_accelerator():
      self._started = {first: self._start(first) for first in self._firsts()}
    # Computed now, because another thread may fetch, and remove, parts later.
    self.nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._started))

  def _firsts(self) -> range:
    return range(0, len(self._cameras), self._at_once)

  def _start(self, first: int) -> tuple[Any, jax.Array]:
    """Starts a part; returns its reduced renders and the overflow of `_render_views`."""
    index = np.minimum(np.arange(first, first + self._at_once), len(self._cameras) - 1)
    part = self._cameras[index]
    output, overflow = _render(self._gaussians, part, self._filter_width, self._capacity)
    count = len(self._cameras) - first
    if count < self._at_once:  # Do not copy cameras that only fill up the last part.
      output = _first_views(output, count)
    return self._reduce(output), overflow

  def parts(self) -> Iterator[Any]:
    """Yields the reduced renders of consecutive cameras as NumPy, not yet cut to their size.

    A part that dropped pairs of splat and tile is rendered again with twice the capacity.
    """
    for first in self._firsts():
      known = first in self._started
      wanted, overflow = self._started.pop(first) if known else self._start(first)
      for _ in range(_MAX_DOUBLINGS):
        dropped = int(overflow)
        if dropped == 0:
          break
        self._capacity *= 2
        logging.info("%d splat-tile pairs dropped; capacity is now %d", dropped, self._capacity)
        wanted, overflow = self._start(first)
      else:
        logging.warning("%d splat-tile pairs left out of a render", int(overflow))
      yield jax.tree.map(np.asarray, wanted)

  def fetch(self) -> Any:
    """Returns the reduced renders of all cameras (V, ...), not yet cut; call it once only."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.parts())


def _cameras_at_once(width: int, height: int) -> int:
  """Returns the number of cameras of a call: the same for all V, so that one program serves all."""
  pixels = _PIXELS_AT_ONCE.get(jax.default_backend(), _PIXELS_ON_ACCELERATORS)
  return min(_MOST_AT_ONCE, max(1, pixels // (width * height)))


def compile_renders(compiler: BackgroundCompiler, gaussians: Gaussians, cameras: Cameras) -> None:
  """Compiles in the background the program that renders Gaussians into cameras of this size.

  Args:
    compiler: compiles it.
    gaussians: (N,); their number, rounded up, and their type count.
    cameras: (V,); their image size counts.
  """
  width, height = padded_image_size(cameras.width, cameras.height)
  padded = pad_gaussians(gaussians)
  part = cameras[np.zeros(_cameras_at_once(width, height), np.int64)]
  part = dataclasses.replace(part, width=width, height=height)
  compiler.start(_render, padded, part, 0.0, default_capacity(len(padded.means)))


@jax.jit
def _encode(rgb: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Does `writer.to_rgba8` on the device: (V, H, W, 4) uint8, and (V,) bool if all is finite.

  This copies a fifth of the bytes that floats would take.
  """
  rgba = straight_levels(rgb, alpha, jnp).astype(jnp.uint8)
  return rgba, jnp.isfinite(rgb).all((1, 2, 3)) & jnp.isfinite(alpha).all((1, 2))


def _encode_output(output: RenderOutput) -> tuple[jax.Array, jax.Array]:
  return _encode(output.rgb, output.alpha)


@functools.partial(jax.jit, static_argnames="stride")
def _thin(output: RenderOutput, stride: int) -> dict[str, jax.Array]:
  """Returns `ORBIT_MAPS` of every `stride`-th pixel."""
  return {name: getattr(output, name)[:, ::stride, ::stride] for name in ORBIT_MAPS}


@jax.jit
def _input_maps(output: RenderOutput) -> tuple[dict[str, jax.Array], jax.Array]:
  """Returns `INPUT_MAPS` in few bytes, and (V,) bool whether colours are finite."""
  rgba, finite = _encode(output.rgb, output.alpha)
  normal = output.normal.astype(jnp.float16)
  return {"rgba": rgba, "depth": output.depth, "normal": normal}, finite


def _check_finite(finite: np.ndarray) -> None:
  if not finite.all():
    raise ValueError("renders with values that are not finite cannot be stored as 8-bit images")


def _cut(maps: Any, width: int, height: int) -> Any:
  """Cuts arrays (V, H, W, ...) to a size."""
  return jax.tree.map(lambda leaf: leaf[:, :height, :width], maps)


class InputRenders:
  """Renders a fit at the cameras of its photographs: `INPUT_MAPS` for scores and pictures.

  Attributes:
    nbytes: device memory of the renders that were started.
  """

  def __init__(self, gaussians: Gaussians, cameras: Cameras, filter_width: float | None):
    """Starts the renders on an accelerator.

    Args:
      gaussians: (N,).
      cameras: (V,) of one image size.
      filter_width: world units, see `rendering.render`.
    """
    self._size = cameras.width, cameras.height
    self._renders = Renders(gaussians, cameras, filter_width, _input_maps)
    self.nbytes = self._renders.nbytes

  def fetch(self) -> Maps:
    """Returns `INPUT_MAPS` (V, H, W, ...): straight 8-bit RGBA, depth, normals in half precision.

    Raises:
      ValueError: the renders are not finite.
    """
    maps, finite = self._renders.fetch()
    _check_finite(finite)
    return _cut(maps, *self._size)


class OrbitRenders:
  """Renders the images of a dataset, and small float maps of some of their pixels for scores.

  Attributes:
    nbytes: device memory of the renders that were started.
  """

  def __init__(
    self,
    gaussians: Gaussians,
    cameras: Cameras,
    filter_width: float | None,
    stride: int,
    step: int,
  ):
    """Starts the renders on an accelerator.

    Args:
      gaussians: (N,).
      cameras: (V,) of one image size.
      filter_width: world units, see `rendering.render`.
      stride: pixels of an image from one pixel of a map to the next.
      step: images from one map to the next.
    """
    self._size, self._stride, self._step = (cameras.width, cameras.height), stride, step
    reduce = lambda output: (*_encode_output(output), _thin(output, stride))
    self._renders = Renders(gaussians, cameras, filter_width, reduce)
    self.nbytes = self._renders.nbytes

  def fetch(self) -> tuple[np.ndarray, Maps]:
    """Returns the images and the maps.

    Returns:
      straight 8-bit RGBA (V, H, W, 4); and `ORBIT_MAPS` over black of every `stride`-th pixel of
      every `step`-th view, float32.

    Raises:
      ValueError: the renders are not finite.
    """
    rgba, finite, maps = self._renders.fetch()
    _check_finite(finite)
    width, height = self._size
    small = (-(-side // self._stride) for side in self._size)
    thinned = {name: values[:: self._step] for name, values in _cut(maps, *small).items()}
    return rgba[:, :height, :width], thinned


def render_in_parts(
  gaussians: Gaussians,
  cameras: Cameras,
  filter_width: float | None = None,
  fields: Sequence[str] = ("rgb", "alpha"),
) -> Iterator[Maps]:
  """Renders V cameras over black, a few at a time.

  Args:
    gaussians: (N,).
    cameras: (V,) of one image size.
    filter_width: world units, see `rendering.render`.
    fields: the fields of `RenderOutput` that are copied to the host.

  Yields:
    those fields of consecutive cameras, (n, H, W, ...).
  """
  reduce = lambda output: {name: getattr(output, name) for name in fields}
  for part in Renders(gaussians, cameras, filter_width, reduce).parts():
    yield _cut(part, cameras.width, cameras.height)


def render_rgba(
  gaussians: Gaussians, cameras: Cameras, filter_width: float | None = None
) -> np.ndarray:
  """Renders straight 8-bit RGBA (V, H, W, 4) of V cameras of one image size.

  Args:
    gaussians: (N,).
    cameras: (V,).
    filter_width: world units, see `rendering.render`.

  Raises:
    ValueError: the renders are not finite.
  """
  rgba, finite = Renders(gaussians, cameras, filter_width, _encode_output).fetch()
  _check_finite(finite)
  return _cut(rgba, cameras.width, cameras.height)


def render_groups(
  gaussians: Gaussians,
  groups: Sequence[tuple[np.ndarray, Cameras]],
  filter_width: float | None = None,
) -> list[np.ndarray]:
  """Renders straight 8-bit RGBA of cameras of several image sizes; similar sizes share a program.

  Args:
    gaussians: (N,).
    groups: view indices and cameras of each image size, as `CameraFile.groups` returns them.
    filter_width: world units, see `rendering.render`.

  Returns:
    one image (H, W, 4) per view, in the order of the indices.

  Raises:
    ValueError: the renders are not finite.
  """
  by_size: dict[tuple[int, int], list[tuple[np.ndarray, Cameras]]] = {}
  for index, cameras in groups:
    size = padded_image_size(cameras.width, cameras.height)
    by_size.setdefault(size, []).append((index, cameras))
  images: dict[int, np.ndarray] = {}
  for (width, height), members in by_size.items():
    alike = [dataclasses.replace(cameras, width=width, height=height) for _, cameras in members]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *alike)
    rgba = iter(render_rgba(gaussians, joined, filter_width))
    for index, cameras in members:
      for i in index.tolist():
        images[i] = next(rgba)[: cameras.height, : cameras.width]
  return [images[i] for i in range(len(images))]
