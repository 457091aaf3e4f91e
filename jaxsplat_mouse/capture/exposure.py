"""One gain per camera and colour channel, from surface points that several cameras see.

A point of a dull surface looks the same from everywhere, whatever light falls on it. Where cameras
disagree about the same points in the same way all over a recording, their exposure or white balance
differs. The gains are the weighted least-squares solution of

    log color[point, camera] = log color[point] + log gain[camera]

over all sightings, with Cauchy's weights against sightings of something else (a hull is larger than
the animal, so two cameras often see two places). What all cameras share cannot be seen: the mean of
the log gains is zero.

Two things look like exposure, because lights stand still as the cameras do. A hull's points lie a
little off the surface, so a camera looks past them at a place that is turned away from it, always
to the same side of the light; `_SHADING` is the size of that error. And a coat may shine: a camera
that faces the light sees brighter fur. The gains are therefore fitted twice, without and with a
sheen that depends, to first degree, on the mirrored direction of view. The truth lies between: the
result is the mean, and half the difference is part of its error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_DARK, _BRIGHT = 10 / 255, 0.97  # colours beyond are noise, or clipped
_FACING = 0.3  # cosine between normal and view; grazing sightings see sheen, and another place
_INSIDE = 0.99  # of `Sightings.depths`: nothing of the outline's mixed colours
_PRIOR = 3.0  # sightings that say a gain is one, and that there is no sheen
_STEPS = 15
_TAIL = 2.0  # standard deviations beyond which a sighting counts less and less
_NOISE = 0.02  # least standard deviation of a log colour
_BLOCKS = 8  # of moments, for the jackknife
_SIGNIFICANT = 3.0  # standard errors
_WORTHWHILE = 0.05  # share by which they must disagree less, at least
_SAME_SURFACE = 0.07  # log colour; cameras that still disagree more see different places
_SHADING = 0.01  # standard error that fixed lights add, log colour; see `benchmarks.exposure`
_FEWEST_POINTS = 50  # that two cameras see, for a moment to count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorReadings:
  """Colours of surface points that at least two cameras see.

  Attributes:
    moments: (P,) number of each point's moment, ascending from 0.
    logs: (P, V, 3) log colour; anything where not `usable`.
    usable: (P, V) bool.
    mirrored: (P, V, 3) unit directions to the camera, mirrored at the surface.
  """

  moments: np.ndarray
  logs: np.ndarray
  usable: np.ndarray
  mirrored: np.ndarray

  @property
  def count(self) -> int:
    """Number of moments."""
    return int(self.moments[-1]) + 1 if len(self.moments) else 0

  def select(self, kept: np.ndarray) -> ColorReadings:
    """Returns the points of some moments (K,), which keep their numbers."""
    mask = np.isin(self.moments, kept)
    return ColorReadings(
      moments=self.moments[mask],
      logs=self.logs[mask],
      usable=self.usable[mask],
      mirrored=self.mirrored[mask],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExposureEstimate:
  """Gains of the cameras and the evidence for them.

  Attributes:
    gains: (V, 3) colour of each camera's photographs over the colour that all agree on; their
      geometric mean over the cameras is 1.
    errors: (V, 3) standard errors of the log gains: by jackknife over the moments, and what the
      assumption about sheen changes.
    disagreement_before: (M,) median of |log colour - mean of the cameras| in each moment.
    disagreement_after: (M,) likewise with the gains, measured on other moments, taken out.
  """

  gains: np.ndarray
  errors: np.ndarray
  disagreement_before: np.ndarray
  disagreement_after: np.ndarray

  @property
  def significant(self) -> bool:
    """Whether a gain differs from one by more than chance and fixed lights explain."""
    spread = np.sqrt(np.square(self.errors) + _SHADING**2)
    return bool((np.abs(np.log(self.gains)) > _SIGNIFICANT * spread).any())

  @property
  def confirmed(self) -> bool:
    """Whether gains of other moments make the cameras agree better, clearly and significantly."""
    fall = np.log(self.disagreement_before / self.disagreement_after)
    if len(fall) < 2:
      return False
    if self.disagreement_after.mean() > _SAME_SURFACE:
      return False
    error = fall.std(ddof=1) / np.sqrt(len(fall))
    return bool(fall.mean() > max(_WORTHWHILE, _SIGNIFICANT * error))


def read_colors(
  colors: np.ndarray, seen: np.ndarray, depths: np.ndarray, toward: np.ndarray, normals: np.ndarray
) -> ColorReadings:
  """Selects what the sightings of one moment tell about exposure.

  Args:
    colors: (V, N, 3) as in `Sightings`.
    seen: (V, N) likewise.
    depths: (V, N) likewise.
    toward: (V, N, 3) unit directions from the points to the cameras.
    normals: (N, 3) unit, outward.
  """
  cosines = (toward * normals).sum(-1)
  usable = seen & (cosines > _FACING) & (depths > _INSIDE)
  usable &= (colors.min(-1) > _DARK) & (colors.max(-1) < _BRIGHT)
  kept = usable.sum(0) >= 2
  by_point = lambda values: values[:, kept].swapaxes(0, 1)
  return ColorReadings(
    moments=np.zeros(kept.sum(), int),
    logs=by_point(np.log(np.maximum(colors, _DARK))).astype(np.float64),
    usable=by_point(usable),
    mirrored=by_point(2 * cosines[..., None] * normals - toward).astype(np.float64),
  )


def join_moments(found: Sequence[ColorReadings], views: int) -> ColorReadings:
  """Joins the readings of single moments by V views; those with few points are left out."""
  kept = [one for one in found if len(one.logs) >= _FEWEST_POINTS]
  nothing = np.zeros((0, views, 3))
  return ColorReadings(
    moments=np.repeat(np.arange(len(kept)), [len(one.logs) for one in kept]),
    logs=np.concatenate([nothing, *[one.logs for one in kept]]),
    usable=np.concatenate([nothing[..., 0] > 0, *[one.usable for one in kept]]),
    mirrored=np.concatenate([nothing, *[one.mirrored for one in kept]]),
  )


def estimate_exposure(readings: ColorReadings) -> ExposureEstimate:
  """Estimates the gains of all cameras.

  Args:
    readings: of at least two moments.
  """
  views, count = readings.logs.shape[1], readings.count
  models = _fit(readings, readings.mirrored[..., :0]), _fit(readings, readings.mirrored)
  solve = lambda kept: np.stack([one.solve(kept)[:views] for one in models])
  both = solve(np.arange(count))
  # Jackknife over blocks of consecutive moments (Tukey 1958); each block also tests the others.
  blocks = np.array_split(np.arange(count), min(_BLOCKS, count))
  without = np.stack([solve(np.setdiff1d(np.arange(count), block)).mean(0) for block in blocks])
  chance = (len(blocks) - 1) * without.var(0)
  after = [_disagreement(readings.select(b), w) for b, w in zip(blocks, without, strict=True)]
  return ExposureEstimate(
    gains=np.exp(both.mean(0)),
    errors=np.sqrt(chance + np.square(both[0] - both[1]) / 4),
    disagreement_before=_disagreement(readings, np.zeros((views, 3))),
    disagreement_after=np.concatenate(after),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Equations:
  """Normal equations of M moments for V log gains and then the coefficients of a sheen.

  Attributes:
    matrices: (M, K, K).
    rights: (M, K, 3).
  """

  matrices: np.ndarray
  rights: np.ndarray

  def solve(self, kept: np.ndarray) -> np.ndarray:
    """Solution (K, 3) of some moments; the mean log gain of cameras that share points is 0."""
    matrix = self.matrices[kept].sum(0)
    return np.linalg.solve(matrix + _PRIOR * np.eye(len(matrix)), self.rights[kept].sum(0))


def _fit(readings: ColorReadings, sheen: np.ndarray) -> _Equations:
  """Weights sightings by their residuals, in turns with solving; returns the last equations.

  Args:
    readings: of M moments.
    sheen: (P, V, S) features whose weighted sum changes the log colours.
  """
  points, views = readings.usable.shape
  columns = np.concatenate([np.broadcast_to(np.eye(views), (points, views, views)), sheen], -1)
  weights = readings.usable.astype(np.float64)
  groups = _groups(readings.moments)
  for _ in range(_STEPS):
    x, y = _centred(columns, weights), _centred(readings.logs, weights)
    pushed = x * weights[..., None]
    flat = lambda values, group: values[group].reshape(-1, values.shape[-1])
    equations = _Equations(
      matrices=np.stack([flat(pushed, one).T @ flat(x, one) for one in groups]),
      rights=np.stack([flat(pushed, one).T @ flat(y, one) for one in groups]),
    )
    off = np.sqrt(np.square(y - x @ equations.solve(np.arange(len(groups)))).mean(-1))
    scale = max(_NOISE, 1.4826 * float(np.median(off[readings.usable])))
    weights = readings.usable / (1.0 + np.square(off / (_TAIL * scale)))
  return equations


def _centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Values (P, V, C) minus each point's mean by weights (P, V)."""
  total = np.maximum(weights.sum(1), 1e-12)[:, None, None]
  return values - (values * weights[..., None]).sum(1, keepdims=True) / total


def _disagreement(readings: ColorReadings, gains: np.ndarray) -> np.ndarray:
  """Median distance of colours from the cameras' mean in each moment, with log gains (V, 3)."""
  usable = readings.usable.astype(np.float64)
  off = np.abs(_centred(readings.logs - gains, usable)).mean(-1)
  return np.array([np.median(off[one][readings.usable[one]]) for one in _groups(readings.moments)])


def _groups(moments: np.ndarray) -> list[np.ndarray]:
  """Indices of the points of each moment."""
  return np.split(np.arange(len(moments)), np.flatnonzero(np.diff(moments)) + 1)
