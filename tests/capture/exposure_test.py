"""Gains of cameras from colours of common points: recovered, and left alone if there are none."""

from __future__ import annotations

import numpy as np

from jaxsplat_mouse.capture.exposure import estimate_exposure, join_moments, read_colors

VIEWS = 6


def readings(gains: np.ndarray, moments: int = 12, points: int = 300, wild: float = 0.1):
  """A convex coat seen by neighbouring cameras of a ring; a share of the sightings is of others."""
  rng = np.random.default_rng(0)
  found = []
  for _ in range(moments):
    coat = rng.uniform(0.15, 0.6, (points, 3))
    around = lambda azimuth: np.stack([np.cos(azimuth), np.sin(azimuth), 0 * azimuth], -1)
    normals = around(rng.uniform(0, 2 * np.pi, points))
    toward = np.tile(around(2 * np.pi * np.arange(VIEWS) / VIEWS)[:, None], (1, points, 1))
    colors = coat * gains[:, None] * np.exp(0.05 * rng.normal(size=(VIEWS, points, 1)))
    other = rng.random((VIEWS, points)) < wild
    colors[other] = rng.uniform(0.1, 0.9, (int(other.sum()), 3))
    colors = np.round(np.clip(colors, 0, 1) * 255) / 255
    seen = (toward * normals).sum(-1) > 0
    found.append(read_colors(colors, seen, np.ones(seen.shape), toward, normals))
  return join_moments(found, VIEWS)


def test_gains_are_recovered_and_confirmed() -> None:
  gains = np.exp(np.random.default_rng(1).uniform(-0.15, 0.15, (VIEWS, 3)))
  found = estimate_exposure(readings(gains))
  wanted = gains / np.exp(np.log(gains).mean(0))
  np.testing.assert_allclose(found.gains, wanted, rtol=0.015)
  assert found.significant and found.confirmed
  assert found.disagreement_after.mean() < 0.6 * found.disagreement_before.mean()
  # The jackknife's errors are those that were made.
  off = np.log(found.gains / wanted) / found.errors
  assert 0.3 < np.sqrt(np.square(off).mean()) < 3


def test_equal_cameras_stay_as_they_are() -> None:
  found = estimate_exposure(readings(np.ones((VIEWS, 3))))
  assert np.abs(found.gains - 1).max() < 0.01
  assert not found.significant and not found.confirmed


def test_clipped_colours_take_no_part() -> None:
  gains = np.ones((VIEWS, 3))
  gains[2] = 1.7  # the brighter half of its pixels is white
  found = estimate_exposure(readings(gains))
  wanted = gains / np.exp(np.log(gains).mean(0))
  np.testing.assert_allclose(found.gains, wanted, rtol=0.05)


def test_a_camera_that_shares_no_point_keeps_its_colours() -> None:
  held = readings(np.linspace(0.8, 1.2, VIEWS)[:, None] * np.ones(3))
  held.usable[:, 4] = False
  found = estimate_exposure(held)
  np.testing.assert_allclose(found.gains[4], 1.0, atol=1e-6)
