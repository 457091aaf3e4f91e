"""Studies whether the cameras of a recording ran in step, on moments in which the animal moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse.capture import frame_offsets, recording_outlines
from jaxsplat_mouse.capture.crops import CroppedSilhouette, Cropper
from jaxsplat_mouse.capture.frame_offsets import FrameOffsets, MovingOutlines
from jaxsplat_mouse.capture.prepare_options import PrepareOptions, shift_frames
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.silhouette_coherence import Outlines

CANDIDATES = 48  # moments, spread over the recording, whose motion is measured
_OF_EACH = 2  # successive candidates of which the one with most motion takes part
FEWEST_MOMENTS = 6
_ENOUGH = 0.5  # share of a camera's frames that must be there at another offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncStudy:
  """Whether cameras ran in step.

  Attributes:
    names: V names of the cameras that took part.
    moments: indices of the moments that took part.
    found: their lags; None where there were too few moments.
    applied: whether the offsets are in use.
  """

  names: tuple[str, ...]
  moments: tuple[int, ...] = ()
  found: FrameOffsets | None = None
  applied: bool = False

  @property
  def offsets(self) -> dict[str, int]:
    """Frames to add to each camera's, of cameras that are out of step."""
    if self.found is None:
      return {}
    return {n: int(o) for n, o in zip(self.names, self.found.offsets, strict=True) if o}

  def lines(self) -> list[str]:
    """Describes the result in plain English."""
    found = self.found
    if found is None:
      count = f"{len(self.moments)} moments in which three cameras have three successive frames"
      return [f"sync: not examined; {count}, it takes {FEWEST_MOMENTS}"]
    speed = f"{len(self.moments)} moments, the animal moves by {np.median(found.motion):.1f} px"
    speed += " per frame"
    if not self.offsets:
      return [f"sync: no camera is a whole frame early or late ({speed})", *self._doubts()]
    evidence = f"held-out silhouettes contradict each other by {found.before.mean():.2f} px before"
    evidence += f", {max(found.after.mean(), 0):.2f} px after"
    listed = _as_flag(self.offsets)
    verb = "applied" if self.applied else "not applied, try"
    first = f"sync: {verb} --offsets={listed}; {evidence} ({speed})"
    return [first if self.applied else f"warning: {first}", *self._lags(), *self._doubts()]

  def _lags(self) -> list[str]:
    found = self.found
    assert found is not None
    rows = zip(self.names, found.lags, found.errors, strict=True)
    listed = " ".join(f"{name} {lag:+.2f} ± {error:.2f}" for name, lag, error in rows)
    return [f"frames late: {listed}"]

  def _doubts(self) -> list[str]:
    """Names cameras of which nothing can be told, and those off by part of a frame."""
    found = self.found
    assert found is not None
    lines = []
    blind = [n for n, e in zip(self.names, found.errors, strict=True) if e > frame_offsets.SHARP]
    if blind:
      lines.append(f"sync: the animal moves too little to tell a frame in {', '.join(blind)}")
    rest = found.lags - found.offsets
    sure = (np.abs(rest) > frame_offsets.SURE * found.errors) & (np.abs(rest) > 0.25)
    for name, part, error in zip(self.names, rest, found.errors, strict=True):
      if sure[self.names.index(name)]:
        side = "late" if part > 0 else "early"
        seen = f"{abs(part):.2f} ± {error:.2f} frames {side}"
        lines.append(f"warning: {name} is {seen}, which no whole frame mends")
    return lines

  def to_json(self) -> dict[str, Any]:
    """Returns what `recording.json` keeps."""
    value: dict[str, Any] = {
      "applied": self.applied,
      "offsets": self.offsets,
      "moments": list(self.moments),
      "summary": self.lines(),
    }
    if self.found is not None:
      numbers = lambda x: [round(float(v), 4) for v in x]
      by_name = lambda x: dict(zip(self.names, numbers(x), strict=True))
      value |= {
        "frames_late": by_name(self.found.lags),
        "standard_error": by_name(self.found.errors),
        "motion_px_per_frame": by_name(self.found.motion),
        "held_out_contradiction_px": {
          "before": numbers(self.found.before),
          "after": numbers(self.found.after),
        },
      }
    return value


def apply_offsets(
  options: PrepareOptions, capture: Capture, study: Mapping[str, Any]
) -> np.ndarray:
  """Returns the frames (F, V) of all moments with the user's offsets, and those that were found.

  Args:
    options: the preparation.
    capture: the recording.
    study: as `SyncStudy.to_json` returns it; empty for none.

  Raises:
    InputError: an offset names no camera of the recording.
  """
  offsets = dict(options.offsets)
  if study.get("applied"):
    for name, offset in study["offsets"].items():
      offsets[name] = offsets.get(name, 0) + int(offset)
  return shift_frames(capture, offsets)


def earlier_lines(study: Mapping[str, Any]) -> list[str]:
  """Describes the offsets that an earlier run applied; see `apply_offsets`."""
  if not study.get("applied"):
    return []
  return [f"sync: offsets of the earlier run: {_as_flag(study['offsets'])}"]


def _as_flag(offsets: Mapping[str, int]) -> str:
  return ",".join(f"{name}:{offset:+d}" for name, offset in offsets.items())


def study_sync(
  cropper: Cropper, frames: np.ndarray, started: Callable[[int, int], None], *, applies: bool
) -> SyncStudy:
  """Fits the time lags of the readable cameras on moments of motion, spread over the recording.

  Args:
    cropper: reads the silhouettes.
    frames: (F, V) frame of each camera in each moment; -1 for none.
    started: called with the number of moments read, and of those to read.
    applies: whether offsets that are found will be used, rather than reported.
  """
  rig, views = cropper.capture.rig, sorted(cropper.pinholes)
  names = tuple(rig.names[view] for view in views)
  reader = _MovingReader(cropper, frames, views)
  chosen = reader.choose_moments(started)
  if len(chosen) < FEWEST_MOMENTS:
    return SyncStudy(names=names, moments=tuple(chosen))
  poses = np.asarray(rig.world_to_camera, np.float64)[views]
  read = lambda offsets: reader.read(chosen, offsets)
  found = frame_offsets.find_offsets(poses, read)
  return SyncStudy(
    names=names, moments=tuple(chosen), found=found, applied=applies and found.confirmed
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Glimpse:
  """A camera's silhouette, and its centroids (2,) one frame before and after, x / z and y / z."""

  silhouette: CroppedSilhouette
  before: np.ndarray
  after: np.ndarray

  @property
  def motion(self) -> float:
    """Of the centroid, pixels at native resolution per frame."""
    focal = self.silhouette.intrinsics[:2] / self.silhouette.scale
    return float(np.linalg.norm(focal * (self.after - self.before)) / 2)


class _MovingReader:
  """Reads silhouettes with those of the frames around them, each once."""

  def __init__(self, cropper: Cropper, frames: np.ndarray, views: Sequence[int]):
    self._cropper, self._frames, self._views = cropper, frames, views
    self._seen: dict[tuple[int, int, int], _Glimpse | None] = {}  # by moment, view and offset
    self._traced: dict[tuple[int, int, int], Outlines] = {}
    self._scale = 1.0

  def choose_moments(self, started: Callable[[int, int], None]) -> list[int]:
    """Returns the moments with most motion, spread over the recording."""
    views = list(self._views)
    enough = (self._frames[:, views] >= 1).sum(1) >= recording_outlines.MIN_VIEWS
    usable = np.flatnonzero(enough)
    candidates = [int(i) for i in usable[recording_outlines.evenly(len(usable), CANDIDATES)]]
    zero = np.zeros(len(views), int)
    speeds = {}
    for count, index in enumerate(candidates):
      started(count, len(candidates))
      self._look(index, zero)
      motions = [g.motion for g in (self._seen[index, v, 0] for v in views) if g is not None]
      if len(motions) >= recording_outlines.MIN_VIEWS:
        speeds[index] = float(np.median(motions))
    size = _OF_EACH if len(speeds) >= CANDIDATES // 2 else 1
    groups = [list(speeds)[i : i + size] for i in range(0, len(speeds), size)]
    chosen = [max(group, key=lambda index: speeds[index]) for group in groups]
    rows = [[self._seen[index, view, 0] for view in views] for index in chosen]
    if rows:
      crops = [[g.silhouette if g is not None else None for g in row] for row in rows]
      self._scale = recording_outlines.grid_scale(crops)
    self._seen = {key: value for key, value in self._seen.items() if key[0] in chosen}
    return chosen

  def read(self, moments: Sequence[int], offsets: np.ndarray) -> MovingOutlines | None:
    """Returns the outlines of some moments with offsets (V,) added to the cameras' frames."""
    for index in moments:
      self._look(index, offsets)
    rows = [
      [(index, view, int(o)) for view, o in zip(self._views, offsets, strict=True)]
      for index in moments
    ]
    found = np.array([[self._seen[key] is not None for key in row] for row in rows])
    if (found.mean(0) < _ENOUGH * (self._frames[list(moments)][:, self._views] >= 0).mean(0)).any():
      return None
    outlines = [[self._trace(key) for key in row] for row in rows]
    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *row) for row in outlines]
    nothing = np.zeros(2)
    centroids = lambda side: np.array(
      [
        [nothing if (g := self._seen[key]) is None else getattr(g, side) for key in row]
        for row in rows
      ]
    )
    return MovingOutlines(
      outlines=jax.tree.map(lambda *leaves: np.stack(leaves), *stacked),
      before=centroids("before"),
      after=centroids("after"),
    )

  def _look(self, index: int, offsets: np.ndarray) -> None:
    """Reads the glimpses of one moment that were not read yet."""
    by_view = {view: int(o) for view, o in zip(self._views, offsets, strict=True)}

    def glance(view: int, frame: int) -> _Glimpse | None:
      key = index, view, by_view[view]
      if key in self._seen or frame < 0:
        return self._seen.get(key)
      three = [
        recording_outlines.read_silhouette(self._cropper, view, frame, by_view[view] + side)
        for side in (-1, 0, 1)
      ]
      before, own, after = three
      if before is None or own is None or after is None:
        return None
      return _Glimpse(silhouette=own, before=_centroid(before), after=_centroid(after))

    found, _ = self._cropper.map_cameras(self._frames[index], glance)
    self._seen |= {(index, view, by_view[view]): found[view] for view in self._views}

  def _trace(self, key: tuple[int, int, int]) -> Outlines:
    """Outlines without the axes M and V."""
    if key not in self._traced:
      glimpse = self._seen[key]
      silhouette = None if glimpse is None else glimpse.silhouette
      traced = recording_outlines.trace_silhouettes([[silhouette]], self._scale)
      self._traced[key] = jax.tree.map(lambda leaf: leaf[0, 0], traced)
    return self._traced[key]


def _centroid(silhouette: CroppedSilhouette) -> np.ndarray:
  """Centroid (2,) of a silhouette, x / z and y / z."""
  weight = silhouette.alpha.astype(np.float64)
  height, width = weight.shape
  middle = [weight.sum(0) @ (np.arange(width) + 0.5), weight.sum(1) @ (np.arange(height) + 0.5)]
  pixels = np.array(middle) / max(weight.sum(), 1.0)
  return (pixels - silhouette.intrinsics[2:]) / silhouette.intrinsics[:2]
