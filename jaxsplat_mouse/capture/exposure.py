"""One gain per camera and colour channel, from surface points that several cameras see.

A point of a dull surface looks the same from everywhere, whatever light falls on it. Where cameras
disagree about the same points in the same way all over a recording, their exposure or white balance
differs. The gains are the weighted least-squares solution of

    log color[point, camera] = log color[point] + log gain[camera]

over all sightings, with Cauchy's weights against sightings of something else (a hull is larger than
the animal, so two cameras often see two places). What all cameras share cannot be seen: the mean of
the log gains is zero.

A hull's points lie a little off the surface, so a camera looks past them at a place that is turned
away from it. Lights stand still as the cameras do, so each camera errs in the same direction all
the time. `_SHADING` is the size of that error; smaller gains are not told from it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_DARK, _BRIGHT = 10 / 255, 0.97  # colours beyond are noise, or clipped
_FACING = 0.3  # cosine between normal and view; grazing sightings see sheen, and another place
_INSIDE = 0.99  # of `Sightings.depths`: nothing of the outline's mixed colours
_PRIOR = 10.0  # sightings' weight that a gain is one
_STEPS = 15
_TAIL = 2.0  # standard deviations beyond which a sighting counts less and less
_NOISE = 0.02  # least standard deviation of a log colour
_BLOCKS = 8  # of moments, for the jackknife
_HELD_OUT = 4  # every fourth moment takes no part in the gains that are tested on it
_SIGNIFICANT = 3.0  # standard errors
_SHADING = 0.01  # standard error that fixed lights add, log colour; see `benchmarks.exposure`
_FEWEST_POINTS = 50  # that two cameras see, for a moment to count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorReadings:
  """Colours of surface points that at least two cameras see.

  Attributes:
    moments: (P,) number of each point's moment, ascending from 0.
    logs: (P, V, 3) log colour; anything where not `usable`.
    usable: (P, V) bool.
  """

  moments: np.ndarray
  logs: np.ndarray
  usable: np.ndarray

  @property
  def count(self) -> int:
    """Number of moments."""
    return int(self.moments[-1]) + 1 if len(self.moments) else 0

  def select(self, kept: np.ndarray) -> ColorReadings:
    """Returns the points of some moments (K,), which keep their numbers."""
    mask = np.isin(self.moments, kept)
    return ColorReadings(moments=self.moments[mask], logs=self.logs[mask], usable=self.usable[mask])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExposureEstimate:
  """Gains of the cameras and the evidence for them.

  Attributes:
    gains: (V, 3) colour of each camera's photographs over the colour that all agree on; their
      geometric mean over the cameras is 1.
    errors: (V, 3) standard errors of the log gains, by jackknife over the moments.
    disagreement_before: (H,) median of |log colour - mean of the cameras| in held-out moments.
    disagreement_after: (H,) likewise with the gains of the other moments taken out.
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
    """Whether the cameras agree better in held-out moments, and significantly so."""
    fall = self.disagreement_before - self.disagreement_after
    if len(fall) < 2:
      return False
    return bool(fall.mean() > _SIGNIFICANT * fall.std(ddof=1) / np.sqrt(len(fall)))


def read_colors(
  colors: np.ndarray, cosines: np.ndarray, seen: np.ndarray, depths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Selects what sightings of one moment tell about exposure; the arguments are as in `Sightings`.

  Returns:
    Log colours (P, V, 3) and whether each is usable (P, V), of the points that two cameras see.
  """
  usable = seen & (cosines > _FACING) & (depths > _INSIDE)
  usable &= (colors.min(-1) > _DARK) & (colors.max(-1) < _BRIGHT)
  kept = usable.sum(0) >= 2
  logs = np.log(np.maximum(colors[:, kept], _DARK)).astype(np.float64)
  return logs.swapaxes(0, 1), usable[:, kept].T


def stack_readings(found: list[tuple[np.ndarray, np.ndarray]]) -> ColorReadings:
  """Joins the results of `read_colors`; moments with few points are left out."""
  kept = [one for one in found if len(one[0]) >= _FEWEST_POINTS]
  if not kept:
    return ColorReadings(
      moments=np.zeros(0, int), logs=np.zeros((0, 0, 3)), usable=np.zeros((0, 0), bool)
    )
  return ColorReadings(
    moments=np.repeat(np.arange(len(kept)), [len(logs) for logs, _ in kept]),
    logs=np.concatenate([logs for logs, _ in kept]),
    usable=np.concatenate([usable for _, usable in kept]),
  )


def estimate_exposure(readings: ColorReadings) -> ExposureEstimate:
  """Estimates the gains of all cameras.

  Args:
    readings: of at least two moments.
  """
  moments = np.arange(readings.count)
  held = moments % _HELD_OUT == _HELD_OUT - 1 if len(moments) >= 2 * _HELD_OUT else moments % 2 == 1
  others = _fit(readings.select(moments[~held])).solve()
  judged = readings.select(moments[held])
  equations = _fit(readings)
  return ExposureEstimate(
    gains=np.exp(equations.solve()),
    errors=equations.jackknife(),
    disagreement_before=_disagreement(judged, np.zeros_like(others)),
    disagreement_after=_disagreement(judged, others),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Equations:
  """Normal equations of each moment: matrices (M, V, V) and right-hand sides (M, V, 3)."""

  matrices: np.ndarray
  rights: np.ndarray

  def solve(self, kept: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Log gains (V, 3) of some moments; the mean of cameras that share points is 0."""
    matrix = self.matrices[kept].sum(0)
    return np.linalg.solve(matrix + _PRIOR * np.eye(len(matrix)), self.rights[kept].sum(0))

  def jackknife(self) -> np.ndarray:
    """Standard errors (V, 3) from leaving out blocks of consecutive moments (Tukey 1958)."""
    count = len(self.matrices)
    blocks = np.array_split(np.arange(count), min(_BLOCKS, count))
    without = np.stack([self.solve(np.setdiff1d(np.arange(count), b)) for b in blocks])
    return np.sqrt((len(blocks) - 1) * without.var(0))


def _fit(readings: ColorReadings) -> _Equations:
  """Solves for the gains with weights that follow the residuals; returns the last equations."""
  views = readings.logs.shape[1]
  weights = readings.usable.astype(np.float64)
  gains = np.zeros((views, 3))
  for _ in range(_STEPS):
    equations = _normal_equations(readings, weights)
    gains = equations.solve()
    off = np.sqrt(np.square(_centred(readings.logs - gains, weights)).mean(-1))
    scale = max(_NOISE, 1.4826 * float(np.median(off[readings.usable])))
    weights = readings.usable / (1.0 + np.square(off / (_TAIL * scale)))
  return equations


def _normal_equations(readings: ColorReadings, weights: np.ndarray) -> _Equations:
  """Equations of the log gains after the points' own colours are eliminated; weights (P, V)."""
  views = weights.shape[1]
  total = np.maximum(weights.sum(1, keepdims=True), 1e-12)
  starts = np.searchsorted(readings.moments, np.unique(readings.moments))
  add = lambda values: np.add.reduceat(values, starts, axis=0)
  share = weights / total
  pairs = add(weights[:, :, None] * share[:, None, :])
  matrices = add(weights)[:, :, None] * np.eye(views) - pairs
  rights = add(weights[..., None] * _centred(readings.logs, weights))
  return _Equations(matrices=matrices, rights=rights)


def _centred(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Log colours (P, V, 3) minus each point's mean by weights (P, V)."""
  total = np.maximum(weights.sum(1), 1e-12)[:, None, None]
  return logs - (logs * weights[..., None]).sum(1, keepdims=True) / total


def _disagreement(readings: ColorReadings, gains: np.ndarray) -> np.ndarray:
  """Median distance of colours from the cameras' mean in each moment, with log gains (V, 3)."""
  usable = readings.usable.astype(np.float64)
  off = np.abs(_centred(readings.logs - gains, usable)).mean(-1)
  return np.array([np.median(off[one][readings.usable[one]]) for one in _groups(readings.moments)])


def _groups(moments: np.ndarray) -> list[np.ndarray]:
  """Indices of the points of each moment."""
  return np.split(np.arange(len(moments)), np.flatnonzero(np.diff(moments)) + 1)
