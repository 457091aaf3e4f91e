"""Measures the exposure of a recording's cameras on moments spread over it; says what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.capture import exposure
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.exposure import ColorReadings, ExposureEstimate
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.color import look_at_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig

_MOMENTS = 24  # that take part, spread over the recording
_FEWEST_MOMENTS = 6
_MIN_VIEWS = 3
_SIDE = 256  # pixels of a reduced photograph; what it averages is noise
_DECIMALS = 5
_HULL = HullConfig(resolution=128, num_points=3000, repair=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingExposure:
  """The exposure of a recording's cameras.

  Attributes:
    names: V cameras.
    moments: number of moments that took part.
    estimate: None where there were too few.
  """

  names: tuple[str, ...]
  moments: int = 0
  estimate: ExposureEstimate | None = None

  @property
  def applied(self) -> bool:
    """Whether the gains are to be taken out of the photographs."""
    return self.estimate is not None and self.estimate.significant and self.estimate.confirmed

  @property
  def corrections(self) -> np.ndarray | None:
    """(V, 3) factors on the photographs' colours; None where they stay as they are."""
    if self.estimate is None or not self.applied:
      return None
    # As `recording.json` has them, so that a later run writes the same pictures.
    return 1.0 / np.round(self.estimate.gains, _DECIMALS)

  def lines(self) -> list[str]:
    """Describes the result in plain English."""
    found = self.estimate
    if found is None:
      count = f"{self.moments} moments with points that two cameras see"
      return [f"exposure: not measured; {count}, it takes {_FEWEST_MOMENTS}"]
    percent = 100 * (np.exp(np.log(found.gains).mean(1)) - 1)
    largest = f"{np.abs(percent).max():.1f} %"
    if not self.applied:
      doubt = ", which other moments do not confirm" if found.significant else ""
      return [f"exposure: left as it is; cameras are within {largest} of their mean{doubt}"]
    listed = " ".join(f"{n} {p:+.1f} %" for n, p in zip(self.names, percent, strict=True))
    before, after = (
      100 * float(np.mean(d)) for d in (found.disagreement_before, found.disagreement_after)
    )
    evidence = f"colours disagree by {before:.1f} % before, {after:.1f} % after, by other moments"
    return [f"exposure: {listed}, taken out; {evidence}"]

  def to_json(self) -> dict[str, Any]:
    """Returns the part that `recording.json` keeps."""
    found = self.estimate
    value: dict[str, Any] = {"applied": self.applied, "moments": self.moments, "gains": {}}
    if found is None:
      return value
    numbers = lambda x: [round(float(v), _DECIMALS) for v in x]
    rows = lambda x: {n: numbers(row) for n, row in zip(self.names, x, strict=True)}
    return value | {
      "gains": rows(found.gains),
      "errors": rows(found.errors),
      "disagreement": {
        "before": numbers(found.disagreement_before),
        "after": numbers(found.disagreement_after),
      },
    }


def measure_exposure(
  cropper: Cropper, frames: np.ndarray, started: Callable[[int, int], None]
) -> RecordingExposure:
  """Measures the exposure of the readable cameras on moments spread over the whole recording.

  Args:
    cropper: reads and crops the pictures, with the poses to use.
    frames: (F, V) frame of each camera in each moment; -1 for none.
    started: called with the number of moments read, and of those to read.
  """
  rig = cropper.capture.rig
  usable = np.flatnonzero((frames[:, sorted(cropper.pinholes)] >= 0).sum(1) >= _MIN_VIEWS)
  places = np.linspace(0, max(len(usable) - 1, 0), min(len(usable), _MOMENTS)).round().astype(int)
  found = []
  for count, index in enumerate(usable[places]):
    started(count, len(places))
    crops, _ = cropper.map_cameras(frames[index], lambda view, f: cropper.crop(view, f, None))
    if len(crops) >= _MIN_VIEWS:
      found.append(_read_moment([crops[view] for view in sorted(crops)], rig))
  readings = exposure.join_moments([one for one in found if one is not None], len(rig))
  if readings.count < _FEWEST_MOMENTS:
    return RecordingExposure(names=rig.names, moments=readings.count)
  estimate = exposure.estimate_exposure(readings)
  return RecordingExposure(names=rig.names, moments=readings.count, estimate=estimate)


def _read_moment(crops: Sequence[Crop], rig: Rig) -> ColorReadings | None:
  """Colours of one moment, with a row for each camera of the rig; None without a common solid."""
  found = read_scene_colors(_color_scene(crops, rig))
  if found is None:
    return None
  # The scene has the cameras with a picture first, then padding.
  rows = np.full(len(rig), len(crops) % len(rig))
  rows[[crop.view for crop in crops]] = np.arange(len(crops))
  return dataclasses.replace(
    found,
    logs=found.logs[:, rows],
    usable=found.usable[:, rows],
    mirrored=found.mirrored[:, rows],
  )


def read_scene_colors(scene: Scene) -> ColorReadings | None:
  """Reads what the views of one moment show of their common solid; None where there is none."""
  try:
    hull = build_hull(scene, _HULL)
  except ValueError:
    return None
  sight = jax.tree.map(np.asarray, look_at_hull(scene, hull))
  poses = np.asarray(scene.cameras.world_to_camera)
  centers = -np.einsum("vij,vi->vj", poses[:, :3, :3], poses[:, :3, 3])
  toward = centers[:, None] - np.asarray(hull.points)
  toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
  normals = np.asarray(hull.normals)
  return exposure.read_colors(sight.colors, sight.seen, sight.depths, toward, normals)


def _color_scene(crops: Sequence[Crop], rig: Rig) -> Scene:
  """Builds a scene of reduced photographs, padded to the number of the rig's cameras."""
  import cv2

  count = len(rig)
  rgba = np.zeros((count, _SIDE, _SIDE, 4), np.float32)
  intrinsics = np.ones((count, 4), np.float32)
  poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
  frames = np.tile(np.array([0, 0, _SIDE, _SIDE], np.float32), (count, 1))
  for i, crop in enumerate(crops):
    height, width = crop.rgba.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    w, h = max(1, int(width * factor)), max(1, int(height * factor))
    image = crop.rgba.astype(np.float32) / 255
    image[..., :3] *= image[..., 3:]
    rgba[i, :h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    intrinsics[i] = crop.intrinsics * np.array([w / width, h / height] * 2)
    frames[i, 2:] = w, h
    poses[i] = rig.world_to_camera[crop.view]
  alphas = rgba[..., 3]
  return Scene(
    cameras=Cameras(world_to_camera=poses, intrinsics=intrinsics, width=_SIDE, height=_SIDE),
    images=rgba[..., :3] / np.maximum(alphas, 1e-6)[..., None],
    alphas=alphas,
    frames=frames,
    view_mask=np.arange(count) < len(crops),
  )


def corrections_from_json(value: Mapping[str, Any], rig: Rig) -> np.ndarray | None:
  """Returns the factors (V, 3) that an earlier run used; None where it corrected nothing.

  Args:
    value: what `RecordingExposure.to_json` returned; empty for an earlier version's run.
    rig: the cameras.

  Raises:
    InputError: it is no such value.
  """
  if not value.get("applied"):
    return None
  try:
    gains = np.array([value["gains"][name] for name in rig.names], np.float64)
  except (KeyError, TypeError, ValueError):
    gains = np.zeros(0)
  if gains.shape != (len(rig), 3) or not (np.isfinite(gains).all() and (gains > 0).all()):
    problem = "expected three numbers above 0 for each camera; --redo measures them again"
    raise InputError("recording.json", "exposure.gains", problem)
  return 1.0 / gains
