"""Mattes before a known plate: alpha, colour and the masks' bias, against exact truth."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")
from jaxsplat_mouse.capture.plate_mattes import Matte, outline_distance, solve_matte
from tests.capture.matte_fixtures import FUR, SIDE, make_alpha, make_plate, move, photograph

KNOWN = np.ones((SIDE, SIDE), bool)
SPREAD = np.full((SIDE, SIDE), 2.0, np.float32)


def solve(mask: np.ndarray, **more: float | None) -> Matte:
  photo = photograph(make_alpha(), make_plate(), gain=0.95, shadow=True)
  return solve_matte(photo, mask, make_plate(), SPREAD, KNOWN, **more)


def band_error(alpha: np.ndarray) -> float:
  true = make_alpha()
  band = np.abs(outline_distance((true * 255).astype(np.uint8))) <= 6
  return float(np.abs(alpha - true)[band].mean())


@pytest.mark.parametrize("pixels", [-1.0, 0.0, 1.0, 2.0])
def test_the_bias_of_a_mask_is_measured(pixels: float) -> None:
  offsets = solve(move(make_alpha(), pixels)).offsets
  assert len(offsets) > 30
  assert abs(np.median(offsets) - pixels) < 0.25


@pytest.mark.parametrize("pixels", [-1.0, 2.0])
def test_alpha_comes_right(pixels: float) -> None:
  mask = move(make_alpha(), pixels)
  found = solve(mask, expected=pixels, wobble=0.2).alpha
  assert band_error(found) < 0.03 < 0.08 < band_error(mask / 255)


def test_the_tail_stays() -> None:
  found = solve(move(make_alpha(), 2.0), expected=2.0, wobble=0.2).alpha
  tail = make_alpha() > 0.99
  tail[:, :112] = False
  assert tail.sum() > 40
  assert found[tail].mean() > 0.9


def test_no_background_bleeds_into_the_colour() -> None:
  found = solve(move(make_alpha(), 1.0), expected=1.0, wobble=0.2)
  edge = (make_alpha() > 0.3) & (make_alpha() < 0.9)
  edge[74:87, 100:] = False
  off = np.abs(found.color[edge] * 255 - 0.95 * FUR).mean()
  photo = photograph(make_alpha(), make_plate(), gain=0.95, shadow=True)
  assert off < 13 < 20 < np.abs(photo[edge] - 0.95 * FUR).mean()


def test_alike_colours_leave_the_moved_mask() -> None:
  plate = np.broadcast_to(FUR, (SIDE, SIDE, 3)).astype(np.float32)
  mask = move(make_alpha(), 2.0)
  photo = photograph(make_alpha(), plate)
  found = solve_matte(photo, mask, plate, SPREAD * 6, KNOWN, expected=2.0, wobble=0.2)
  assert band_error(found.alpha) < 0.5 * band_error(mask / 255)


def test_unknown_pixels_follow_the_mask_and_its_bias() -> None:
  mask = move(make_alpha(), 2.0)
  photo = photograph(make_alpha(), make_plate())
  found = solve_matte(photo, mask, make_plate() * 0, SPREAD, ~KNOWN, expected=2.0, wobble=0.2)
  assert band_error(found.alpha) < 0.02 and not found.confidence.any()
  assert len(found.offsets) == 0
