"""Scenes whose views do not agree, and better poses for their cameras.

The ray of an outline's point touches the animal; where no point of it lies in all other silhouettes
the views refuse it (`capture.silhouette_coherence`). With exact cameras and masks hardly any ray is
refused. A scene of which more are refused is *inexact*: `Scene.inexact` makes its fit move the
cameras and want fewer splats (`fit.inexact_fits`), frames of whole silhouettes are widened, and
poses are refined from the silhouettes alone, close to the given ones. These are used only if the
left-out cameras, on average, agree better with poses that the others found without them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import pose_refinement
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines, trace_outline
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.scene import Scene, silhouette_boxes, to_uint8, widen_frames

_GRID, _SIDE, _POINTS = 160, 125.0, 96  # grid of a silhouette, pixels of the largest in it, rays
# A ray may be refused by half a pixel of the photographs, or of the animal's largest side by:
_TOLERANCE, _TOLERANCE_OF_SIDE = 0.5, 1 / 400
# Radians, and radii of the animal, of a camera's correction: one moment leaves much open.
_PRIOR = (*[float(np.radians(0.3))] * 3, *[0.01] * 3)
_WORTHWHILE = 1e-4  # of the animal's largest side, by which left-out cameras must agree better
_STAGES = pose_refinement.STAGES[1:]  # the first is for cameras that are far off
_SMALLEST = 40  # pixels of the largest silhouette: half a pixel of a smaller one is much of it
_FEWEST_VIEWS = 4  # from which poses are refined: the others judge a left-out one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
  """How far the views of a scene agree, and what was done about it.

  Attributes:
    refused: share of the outlines' rays that other views refuse, under the given poses.
    refused_after: likewise under the poses that are used.
    inexact: whether the scene is fitted as an inexact one.
    decision: `exact`, `refined`, or why the given poses stay.
    world_to_camera: (V, 4, 4) refined poses in the input frame; empty where the given ones stay.
    turns: (V,) rotation of the refined cameras against the given ones, degrees.
    pixels: (V,) root mean square motion of points near the animal, pixels.
    gains: (V,) pixels by which left-out cameras agree better with the refined ones.
  """

  refused: float
  refused_after: float
  inexact: bool
  decision: str
  world_to_camera: tuple[Any, ...] = ()
  turns: tuple[float, ...] = ()
  pixels: tuple[float, ...] = ()
  gains: tuple[float, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """Returns a JSON object."""
    rounded = lambda values: [round(float(v), 3) for v in values]
    return {
      "refused": round(self.refused, 4),
      "refused_after": round(self.refused_after, 4),
      "inexact": self.inexact,
      "decision": self.decision,
      "world_to_camera": np.asarray(self.world_to_camera).tolist(),
      "turns": rounded(self.turns),
      "pixels": rounded(self.pixels),
      "gains": rounded(self.gains),
    }


def describe_agreement(agreement: dict[str, Any]) -> str:
  """Returns one line about a scene whose views do not agree, given `Agreement.to_json`."""
  text = f"views disagree: {100 * agreement['refused']:.1f} % of the outlines are refused"
  if not agreement["turns"]:
    return f"{text}; given poses {agreement['decision']}"
  most = f"{max(agreement['turns']):.2f} degrees, {max(agreement['pixels']):.1f} px"
  if agreement["decision"] != "refined":
    return f"{text}; given poses {agreement['decision']} (up to {most})"
  return f"{text}, {100 * agreement['refused_after']:.1f} % with poses moved by up to {most}"


def treat_scene(scene: Scene, inexact_from: float) -> tuple[Scene, Agreement]:
  """Measures a scene and, if its views do not agree, marks it and refines its poses.

  Args:
    scene: V views in any frame, not cropped, without padding.
    inexact_from: share of refused rays from which a scene is inexact; 1 measures nothing.

  Returns:
    the scene, unchanged if it is exact, and the evidence.
  """
  reason = _not_measured(scene, inexact_from)
  if reason:
    return scene, Agreement(refused=0.0, refused_after=0.0, inexact=False, decision=reason)
  with devices.on_host():
    poses = np.asarray(scene.cameras.world_to_camera, np.float64)
    outlines, scale = outlines_of(scene)
    refused = refused_share(poses, outlines, scale)
    if refused < inexact_from:
      return scene, Agreement(
        refused=refused, refused_after=refused, inexact=False, decision="exact"
      )
    agreement = _refine(poses, outlines, scale, refused)
  return apply_agreement(scene, agreement.to_json()), agreement


def _not_measured(scene: Scene, inexact_from: float) -> str:
  """Returns why a scene is not measured; nothing if it is."""
  if inexact_from >= 1:
    return "not measured"
  if scene.hidden is not None:  # outlines that end at another animal refuse rays without any fault
    return "not measured: animals hide each other"
  return "" if _largest_side(scene) >= _SMALLEST else "not measured: silhouettes are small"


def _largest_side(scene: Scene) -> int:
  """The largest side of a silhouette, pixels."""
  boxes = silhouette_boxes(scene, threshold=0.5)
  return int((boxes[:, 2:] - boxes[:, :2]).max())


def apply_agreement(scene: Scene, agreement: dict[str, Any] | None) -> Scene:
  """Returns a scene in the input frame as it is fitted, given what was found out about it before.

  Args:
    scene: as it was read.
    agreement: see `Agreement.to_json`; None where nothing was measured.
  """
  if agreement is None or not agreement["inexact"]:
    return scene
  scene = widen_frames(scene)
  if agreement["world_to_camera"]:
    moved = np.asarray(agreement["world_to_camera"], np.float32)
    cameras = dataclasses.replace(scene.cameras, world_to_camera=moved)
    scene = dataclasses.replace(scene, cameras=cameras)
  return dataclasses.replace(scene, inexact=np.ones(len(scene.view_mask), bool))


def outlines_of(scene: Scene) -> tuple[Outlines, float]:
  """Returns the outlines (1, V, ...) of a scene, and grid pixels per pixel of the photographs."""
  scene = to_uint8(widen_frames(scene))
  scale = _SIDE / _largest_side(scene)
  intrinsics, frames = np.asarray(scene.cameras.intrinsics, np.float64), np.asarray(scene.frames)
  rows = [
    trace_outline(alpha, k, frame, side=_GRID, points=_POINTS, scale=scale)
    for alpha, k, frame in zip(scene.alphas, intrinsics, frames, strict=True)
  ]
  return stack_outlines([rows]), scale


def refused_share(poses: np.ndarray, outlines: Outlines, scale: float) -> float:
  """Returns the share of the rays that other views refuse.

  Args:
    poses: (V, 4, 4) world to camera.
    outlines: of one moment.
    scale: grid pixels per pixel of the photographs.
  """
  if (outlines.weights.sum((0, 2)) > 0).sum() < 2:
    return 0.0
  depths = pose_refinement.ray_depths(poses, np.ones(len(poses)), outlines)
  known = depths[np.isfinite(depths)]
  tolerance = max(_TOLERANCE * scale, _TOLERANCE_OF_SIDE * _SIDE)
  return float((known < -tolerance).mean()) if len(known) else 0.0


def _refine(poses: np.ndarray, outlines: Outlines, scale: float, refused: float) -> Agreement:
  """Refines the poses of an inexact scene; keeps the given ones if left-out cameras want them."""
  seeing = int((outlines.weights.sum((0, 2)) > 0).sum())
  if seeing < _FEWEST_VIEWS:
    decision = f"kept: {seeing} views cannot judge them"
    return Agreement(refused=refused, refused_after=refused, inexact=True, decision=decision)
  found = _fit_close(poses, outlines)
  gains = left_out_gains(poses, outlines) / scale
  after = refused_share(found, outlines, scale)
  turns, _, pixels = pose_refinement.pose_changes(found, poses, np.ones(len(poses)), outlines)
  better = gains.mean() * scale > _WORTHWHILE * _SIDE and after < refused
  return Agreement(
    refused=refused,
    refused_after=after if better else refused,
    inexact=True,
    decision="refined" if better else "kept: left-out cameras do not agree better",
    world_to_camera=tuple(found) if better else (),
    turns=tuple(turns),
    pixels=tuple(pixels / scale),
    gains=tuple(gains),
  )


def left_out_gains(given: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Returns by how much (V,), grid pixels, each left-out camera agrees better with refined others.

  Args:
    given: (V, 4, 4) world to camera.
    outlines: of one moment.
  """
  ones = np.ones(len(given))
  before = pose_refinement.worst_depths_over_time(given, ones, outlines)[0]
  gains = []
  for view in range(len(given)):
    weights = outlines.weights.copy()
    weights[:, view] = 0
    found = _fit_close(given, dataclasses.replace(outlines, weights=weights))
    found[view] = given[view]
    after = pose_refinement.worst_depths_over_time(found, ones, outlines)[0]
    gains.append(after[view] - before[view])
  return np.nan_to_num(np.array(gains))


def _fit_close(given: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Poses near the given ones under which silhouettes agree better, in the same world.

  Views without weights stay, and do not count in what the cameras have in common.
  """
  found, _ = pose_refinement.fit_poses(given, outlines, stages=_STAGES, prior=_PRIOR)
  used = outlines.weights.sum((0, 2)) > 0
  center, unit = pose_refinement.animal_place(given, outlines)
  found[used] = pose_refinement.remove_common_motion(found[used], given[used], center, unit)
  return found
