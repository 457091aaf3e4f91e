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
_SIDE = 128  # pixels of the grid that holds the largest silhouette
_OTHER_FAULT = 2.0  # pixels of contradiction that a resting animal's masks do not leave
_ENOUGH = 0.5  # share of a camera's frames that must be there at another offset

_Key = tuple[int, int, int]  # moment, view, and frames after the view's own


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
    if not self.offsets and found.after.mean() > max(np.median(found.motion), _OTHER_FAULT):
      pixels = f"silhouettes contradict each other by {found.after.mean():.1f} px"
      return [f"warning: sync: {pixels}, more than a frame explains: another fault hides lags"]
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
  found = frame_offsets.find_offsets(poses, read).rescale(1 / reader.scale)
  return SyncStudy(
    names=names, moments=tuple(chosen), found=found, applied=applies and found.confirmed
  )


class _MovingReader:
  """Reads silhouettes with those of the frames around them, each once."""

  def __init__(self, cropper: Cropper, frames: np.ndarray, views: Sequence[int]):
    self._cropper, self._frames, self._views = cropper, frames, list(views)
    self._seen: dict[_Key, CroppedSilhouette | None] = {}
    self._traced: dict[_Key, Outlines] = {}
    self.scale = 1.0

  def choose_moments(self, started: Callable[[int, int], None]) -> list[int]:
    """Returns the moments with most motion, spread over the recording."""
    has_three = (self._frames[:, self._views] >= 1).sum(1) >= recording_outlines.MIN_VIEWS
    usable = np.flatnonzero(has_three)
    candidates = [int(i) for i in usable[recording_outlines.evenly(len(usable), CANDIDATES)]]
    zero = np.zeros(len(self._views), int)
    speeds = {}
    for count, index in enumerate(candidates):
      started(count, len(candidates))
      self._look(index, zero)
      motions = [m for view in self._views if (m := self._motion(index, view)) is not None]
      if len(motions) >= recording_outlines.MIN_VIEWS:
        speeds[index] = float(np.median(motions))
    size = _OF_EACH if len(speeds) >= CANDIDATES // 2 else 1
    groups = [list(speeds)[i : i + size] for i in range(0, len(speeds), size)]
    chosen = [max(group, key=lambda index: speeds[index]) for group in groups]
    self._seen = {key: value for key, value in self._seen.items() if key[0] in chosen}
    if self._seen:
      self.scale = recording_outlines.grid_scale([list(self._seen.values())], _SIDE)
    return chosen

  def read(self, moments: Sequence[int], offsets: np.ndarray) -> MovingOutlines | None:
    """Returns the outlines of some moments with offsets (V,) added to the cameras' frames."""
    for index in moments:
      self._look(index, offsets)
    rows, there = [], np.zeros((len(moments), len(self._views)))
    for row, index in enumerate(moments):
      found = []
      for place, (view, offset) in enumerate(zip(self._views, offsets, strict=True)):
        three = [self._trace((index, view, int(offset) + side)) for side in (-1, 0, 1)]
        found.append(frame_offsets.trace_motion(*three))
        there[row, place] = found[-1].outlines.weights.any()
      rows.append(jax.tree.map(lambda *leaves: np.stack(leaves), *found))
    expected = (self._frames[list(moments)][:, self._views] >= 0).mean(0)
    if (there.mean(0) < _ENOUGH * expected).any():
      return None
    stacked: MovingOutlines = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return stacked

  def _look(self, index: int, offsets: np.ndarray) -> None:
    """Reads the silhouettes of one moment, and of the frames around, that were not read yet."""
    by_view = {view: int(o) for view, o in zip(self._views, offsets, strict=True)}

    def read(view: int, frame: int) -> dict[_Key, CroppedSilhouette | None]:
      keys = [(index, view, by_view[view] + side) for side in (-1, 0, 1)]
      return {
        key: recording_outlines.read_silhouette(self._cropper, view, frame, key[2])
        for key in keys
        if key not in self._seen
      }

    found, _ = self._cropper.map_cameras(self._frames[index], read)
    for more in found.values():
      self._seen |= more

  def _motion(self, index: int, view: int) -> float | None:
    """Motion of a silhouette's middle, pixels at native resolution per frame; None for none."""
    before, after = (self._seen[index, view, side] for side in (-1, 1))
    if before is None or after is None or self._seen[index, view, 0] is None:
      return None
    way = _middle(after) - _middle(before)
    return float(np.linalg.norm(after.intrinsics[:2] / after.scale * way) / 2)

  def _trace(self, key: _Key) -> Outlines:
    if key not in self._traced:
      silhouette = self._seen[key]
      self._traced[key] = recording_outlines.trace_silhouette(silhouette, self.scale, _SIDE)
    return self._traced[key]


def _middle(silhouette: CroppedSilhouette) -> np.ndarray:
  """Centroid (2,) of a silhouette, x / z and y / z."""
  weight = silhouette.alpha.astype(np.float64)
  height, width = weight.shape
  middle = [weight.sum(0) @ (np.arange(width) + 0.5), weight.sum(1) @ (np.arange(height) + 0.5)]
  pixels = np.array(middle) / max(weight.sum(), 1.0)
  return np.asarray((pixels - silhouette.intrinsics[2:]) / silhouette.intrinsics[:2])
