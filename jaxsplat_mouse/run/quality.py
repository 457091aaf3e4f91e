"""How far a fit can be trusted where nobody looked: scores without held-out views.

They cost one coarse hull and arithmetic on some of the views that are rendered anyway. So every
scene gets them into its manifest line, and a training set can drop its worst scenes by rule.
Leaving a camera out (`evaluate`) measures the same properly, at the price of a fit per camera.
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
_VIEWS = 8  # that are compared, spread over all: walking through the hull is what takes the time
_MARGIN = 2  # their pixels within which the hull's outline is left alone
_SEEN = 0.02  # visibility weight from which a surface point counts as seen
_SAME_DEPTH = 0.03  # relative: a point this near to what a photograph shows is what it shows


def quality_scores(
  scene: Scene,
  inputs: Mapping[str, np.ndarray],
  orbit: Mapping[str, np.ndarray],
  cameras: Cameras,
  hull: Mapping[str, ArrayLike] | None = None,
) -> dict[str, float]:
  """`SCORES` of one fit; those that are not defined are left out.

  Args:
    scene: its photographs in the canonical frame.
    inputs: `alpha` and `depth` (V, H, W) of the fit at the real cameras of the scene.
    orbit: `rgb` (K, S, S, 3) over black, `alpha` and `depth` (K, S, S): every n-th pixel of every
      m-th view of `cameras`, n and m as `sampling` gives them.
    cameras: (V,) that took no photograph.
    hull: what `judge_hull` gave for the scene and the cameras, where it was called before.
  """
  judged = jax.device_get(judge_hull(scene, cameras) if hull is None else hull)
  scores = _hull_scores(judged, orbit["alpha"])
  agreement = _agreement(scene, inputs, orbit, _strided(cameras))
  if np.isfinite(agreement):
    scores["quality_agreement"] = agreement
  return {name: round(float(value), 4) for name, value in scores.items()}


def judge_hull(scene: Scene, cameras: Cameras) -> dict[str, jax.Array]:
  """What a scene's coarse hull says of new views, on the default device, for `quality_scores`.

  Args:
    scene: its photographs in the canonical frame.
    cameras: (V,) of one size.
  """
  return _judge(_photographed(scene), _strided(cameras))


def compile_judge(compiler: BackgroundCompiler, scene: Scene, cameras: Cameras) -> None:
  """Has compiled what `judge_hull` runs for such a scene."""
  compiler.start(_judge, _photographed(scene), _strided(cameras))


def _photographed(scene: Scene) -> Scene:
  """A scene without what an earlier hull told of it."""
  return jax.tree.map(jnp.asarray, dataclasses.replace(scene, doubted=None))


def sampling(cameras: Cameras) -> tuple[int, int]:
  """Pixels from one that is looked at to the next, and views likewise."""
  return max(cameras.width // _SIZE, 1), -(-len(cameras) // _VIEWS)


def _strided(cameras: Cameras) -> Cameras:
  """Those of the cameras, and of their pixels, that `sampling` takes."""
  stride, step = sampling(cameras)
  intrinsics = np.asarray(cameras.intrinsics)[::step] / np.float32(stride)
  # Pixel i of the coarse grid stands for pixel i * stride, whose centre is at i * stride + 0.5.
  intrinsics[:, 2:] += 0.5 - 0.5 / stride
  poses = np.asarray(cameras.world_to_camera)[::step]
  width, height = (-(-size // stride) for size in (cameras.width, cameras.height))
  return Cameras(world_to_camera=poses, intrinsics=intrinsics, width=width, height=height)


@jax.jit
def _judge_hull(scene: Scene, cameras: Cameras) -> dict[str, jax.Array]:
  """Whether there is a hull, how much of it was seen, and what is surely outside and inside it."""
  hull = carve_hull(scene, _HULL)
  silhouettes = jnp.round(hull_alpha(hull, cameras) * 255.0).astype(jnp.uint8)
  margin = jnp.full(len(silhouettes), float(_MARGIN))
  return {
    "solid": hull.shared & hull.consistent,
    "coverage": (hull.visibility > _SEEN).mean(),
    "outside": dilate(silhouettes, margin, margin) < 13,
    "inside": dilate(255 - silhouettes, margin, margin) < 13,
  }


_judge = Program(_judge_hull)


def _hull_scores(hull: Mapping[str, np.ndarray], alpha: np.ndarray) -> dict[str, float]:
  """Scores of coverage (K, S, S) in new views."""
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
  """PSNR in dB of new views against the photographs that show the same points of the fit.

  A fit whose geometry is wrong shows a point in a new view in one colour and finds another in the
  photographs. NaN where no photograph shows any.
  """
  points, colors = _surface(orbit, cameras)
  real = np.flatnonzero(scene.view_mask)
  total, count = 0.0, 0
  for row, view in enumerate(real):
    matrix = np.asarray(scene.cameras.world_to_camera)[view]
    fx, fy, cx, cy = np.asarray(scene.cameras.intrinsics)[view]
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    depth = np.maximum(local[:, 2], 1e-6)
    column = np.floor(local[:, 0] / depth * fx + cx).astype(np.int64)
    line = np.floor(local[:, 1] / depth * fy + cy).astype(np.int64)
    height, width = inputs["alpha"].shape[1:]
    known = (local[:, 2] > 0) & (column >= 0) & (column < width) & (line >= 0) & (line < height)
    column, line = np.where(known, column, 0), np.where(known, line, 0)
    shown = np.asarray(inputs["depth"])[row, line, column]
    known &= np.asarray(inputs["alpha"])[row, line, column] > 0.5
    known &= as_unit_floats(np.asarray(scene.alphas)[view, line, column]) > 0.9
    known &= np.abs(shown - depth) < _SAME_DEPTH * depth
    off = as_unit_floats(np.asarray(scene.images)[view, line, column]) - colors
    total += float((off[known] ** 2).mean(-1).sum())
    count += int(known.sum())
  return metrics.to_decibel(total / count) if count else float("nan")


def _surface(orbit: Mapping[str, np.ndarray], cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
  """World points (P, 3) that opaque pixels of K views show, and their colours (P, 3)."""
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
