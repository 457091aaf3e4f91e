"""Scores of a fit that need no held-out views: they show where a fit cannot be trusted.

They cost one coarse hull and arithmetic on some of the views that are rendered anyway. So every
scene has them in its manifest line, and a rule can drop the worst scenes of a training set.
`evaluate` measures the same properly by leaving cameras out, for one fit per camera.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsplat_mouse import metrics
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.scene import Scene, as_unit_floats
from jaxsplat_mouse.visual_hull.build import carve_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha
from jaxsplat_mouse.visual_hull.silhouette_views import dilate

# What each score means, best value first.
SCORES = {
  "quality_coverage": "1: share of the hull's surface that some photograph sees",
  "quality_floaters": "0: share of the rendered coverage outside the hull's silhouettes",
  "quality_holes": "0: share of the hull's silhouettes that is rendered transparent",
  "quality_agreement": "dB, high: new views against the photographs, warped by the fit's depth",
}
_HULL = HullConfig(resolution=128, num_points=4096)
_SIZE = 128  # side of the pictures that are compared
_VIEWS = 8  # that are compared, spread over all: marching through the hull takes most of the time
_MARGIN = 2  # pixels on either side of the hull's outline that are not compared
_SEEN = 0.02  # visibility weight from which a surface point counts as seen
_SAME_DEPTH = 0.03  # relative difference up to which a photograph shows the same point


def quality_scores(
  scene: Scene,
  inputs: Mapping[str, np.ndarray],
  orbit: Mapping[str, np.ndarray],
  cameras: Cameras,
  reference: Mapping[str, ArrayLike] | None = None,
) -> dict[str, float]:
  """Returns the `SCORES` of one fit; leaves out those that are not defined.

  Args:
    scene: its V photographs in the canonical frame.
    inputs: `alpha` and `depth` (V, H, W) of the fit at the cameras of the photographs.
    orbit: `rgb` (K, S, S, 3) over black, `alpha` and `depth` (K, S, S) of the fit: every n-th pixel
      of every m-th view of `cameras`, with n and m from `sampling_strides`.
    cameras: (M,) new views, which no camera took.
    reference: what `render_hull_reference` returned for the scene and `cameras`; by default it is
      called.

  Returns:
    scores by name, rounded to 4 decimals.
  """
  if reference is None:
    reference = render_hull_reference(scene, cameras)
  scores = _hull_scores(jax.device_get(reference), orbit["alpha"])
  agreement = _agreement(scene, inputs, orbit, _sampled(cameras))
  if np.isfinite(agreement):
    scores["quality_agreement"] = agreement
  return {name: round(float(value), 4) for name, value in scores.items()}


def render_hull_reference(scene: Scene, cameras: Cameras) -> dict[str, jax.Array]:
  """Carves a coarse hull and renders it at new views, on the default device.

  Args:
    scene: its photographs in the canonical frame.
    cameras: (M,) of one size; `sampling_strides` names those that are rendered.

  Returns:
    `solid` () bool, whether the silhouettes admit a hull; `coverage` (), the share of its surface
    that a photograph shows; `outside` and `inside` (K, S, S) bool, pixels that are surely outside
    and inside its silhouettes.
  """
  return _hull_reference(_photographed(scene), _sampled(cameras))


def compile_hull_reference(compiler: BackgroundCompiler, scene: Scene, cameras: Cameras) -> None:
  """Compiles the program of `render_hull_reference` in the background.

  Args:
    compiler: compiles it.
    scene: a scene; its shapes count.
    cameras: (M,); their number and size count.
  """
  compiler.start(_hull_reference, _photographed(scene), _sampled(cameras))


def _photographed(scene: Scene) -> Scene:
  """Returns a scene without the pixels that an earlier hull doubted."""
  return jax.tree.map(jnp.asarray, dataclasses.replace(scene, doubted=None))


def sampling_strides(cameras: Cameras) -> tuple[int, int]:
  """Returns the steps from one compared pixel, and from one compared view, to the next."""
  return max(cameras.width // _SIZE, 1), -(-len(cameras) // _VIEWS)


def _sampled(cameras: Cameras) -> Cameras:
  """Returns cameras whose pixels are those that `sampling_strides` selects."""
  stride, step = sampling_strides(cameras)
  intrinsics = np.asarray(cameras.intrinsics)[::step] / np.float32(stride)
  # Pixel i of the coarse grid stands for pixel i * stride, whose centre is at i * stride + 0.5.
  intrinsics[:, 2:] += 0.5 - 0.5 / stride
  poses = np.asarray(cameras.world_to_camera)[::step]
  width, height = (-(-size // stride) for size in (cameras.width, cameras.height))
  return Cameras(world_to_camera=poses, intrinsics=intrinsics, width=width, height=height)


@jax.jit
def _carve_and_render(scene: Scene, cameras: Cameras) -> dict[str, jax.Array]:
  """See `render_hull_reference`."""
  hull = carve_hull(scene, _HULL)
  silhouettes = jnp.round(hull_alpha(hull, cameras) * 255.0).astype(jnp.uint8)
  margin = jnp.full(len(silhouettes), float(_MARGIN))
  return {
    "solid": hull.shared & hull.consistent,
    "coverage": (hull.visibility > _SEEN).mean(),
    "outside": dilate(silhouettes, margin, margin) < 13,
    "inside": dilate(255 - silhouettes, margin, margin) < 13,
  }


_hull_reference = Program(_carve_and_render)


def _hull_scores(hull: Mapping[str, np.ndarray], alpha: np.ndarray) -> dict[str, float]:
  """Returns the scores that compare the alpha (K, S, S) of new views with the hull."""
  if not hull["solid"]:
    return {}
  outside, inside = hull["outside"], hull["inside"]
  return {
    "quality_coverage": float(hull["coverage"]),
    "quality_floaters": float((alpha * outside).sum() / max(alpha.sum(), 1.0)),
    "quality_holes": float(((1.0 - alpha) * inside).sum() / max(inside.sum(), 1)),
  }


def _agreement(
  scene: Scene, inputs: Mapping[str, np.ndarray], orbit: Mapping[str, np.ndarray], cameras: Cameras
) -> float:
  """Returns the PSNR in dB of new views against photographs that show the same points of the fit.

  Where the geometry of a fit is wrong, a point has another colour in the new view than in the
  photographs. NaN if no photograph shows any of the points.
  """
  points, colors = _surface(orbit, cameras)
  total, count = 0.0, 0
  for row, view in enumerate(np.flatnonzero(scene.view_mask).tolist()):
    line, column, depth, known = _project_points(scene, view, points, inputs["alpha"].shape[1:])
    shown = np.asarray(inputs["depth"])[row, line, column]
    known &= np.asarray(inputs["alpha"])[row, line, column] > 0.5
    known &= as_unit_floats(np.asarray(scene.alphas)[view, line, column]) > 0.9
    known &= np.abs(shown - depth) < _SAME_DEPTH * depth
    off = as_unit_floats(np.asarray(scene.images)[view, line, column]) - colors
    total += float((off[known] ** 2).mean(-1).sum())
    count += int(known.sum())
  return metrics.to_decibel(total / count) if count else float("nan")


def _project_points(
  scene: Scene, view: int, points: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Projects world points (P, 3) into a view of `size` (height, width).

  Returns:
    row and column (P,) of the pixel, depth (P,) in world units, and (P,) bool whether the point is
    inside the image; outside, row and column are 0.
  """
  matrix = np.asarray(scene.cameras.world_to_camera)[view]
  fx, fy, cx, cy = np.asarray(scene.cameras.intrinsics)[view]
  local = points @ matrix[:3, :3].T + matrix[:3, 3]
  depth = np.maximum(local[:, 2], 1e-6)
  column = np.floor(local[:, 0] / depth * fx + cx).astype(np.int64)
  line = np.floor(local[:, 1] / depth * fy + cy).astype(np.int64)
  height, width = size
  inside = (local[:, 2] > 0) & (column >= 0) & (column < width) & (line >= 0) & (line < height)
  return np.where(inside, line, 0), np.where(inside, column, 0), depth, inside


def _surface(orbit: Mapping[str, np.ndarray], cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
  """Returns world points (P, 3) that opaque pixels of K views show, and their colours (P, 3)."""
  points, colors = [], []
  for k in range(len(cameras)):
    solid = orbit["alpha"][k] > 0.9
    line, column = np.nonzero(solid)
    depth = orbit["depth"][k][solid]
    fx, fy, cx, cy = np.asarray(cameras.intrinsics)[k]
    local = np.stack([(column + 0.5 - cx) / fx * depth, (line + 0.5 - cy) / fy * depth, depth], -1)
    matrix = np.asarray(cameras.world_to_camera)[k]
    points.append((local - matrix[:3, 3]) @ matrix[:3, :3])
    colors.append(orbit["rgb"][k][solid] / orbit["alpha"][k][solid][:, None])
  return np.concatenate(points), np.concatenate(colors)
