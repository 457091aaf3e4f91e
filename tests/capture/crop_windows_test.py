"""One window for a batch: large enough for all, not for the mistaken, inside the photograph."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse.capture.crop_windows import CropWindow, choose_window, place_window
from jaxsplat_mouse.capture.lens import Pinhole

PINHOLE = Pinhole(intrinsics=np.array([200.0, 200, 70, 60]), seen=(-2, 3, 150, 120))


def boxes(*sides: float) -> np.ndarray:
  return np.array([[10.0, 20.0, 10.0 + s, 20.0 + s / 2] for s in sides])


def test_the_largest_silhouette_decides() -> None:
  window = choose_window(boxes(40, 61.3, 50), 0.1, 0)
  assert window.side == 96 and window.scale == 1  # 61.3 * 1.2 + 8 = 81.6, in steps of 16
  assert window.holds(boxes(61.3)[0], 0.1)


def test_a_mask_gone_wild_does_not() -> None:
  assert choose_window(boxes(*[50] * 40, 700), 0.1, 0).side == 80


def test_what_is_too_large_is_reduced_and_nothing_is_blown_up() -> None:
  window = choose_window(boxes(300), 0.1, 128)
  assert window.side == 128 and window.scale == pytest.approx(128 / 368)
  assert window.holds(boxes(300)[0], 0.1)
  assert choose_window(boxes(30), 0.1, 512).scale == 1


@pytest.mark.parametrize("corner", [(0.0, 5.0), (110.0, 90.0), (60.0, 50.0)])
def test_a_cut_holds_the_silhouette_and_stays_in_the_photograph(
  corner: tuple[float, float],
) -> None:
  box = np.array([*corner, corner[0] + 30, corner[1] + 20])
  cut = place_window(CropWindow(side=64, scale=1.0, limit=99), PINHOLE, box)
  assert (cut.width, cut.height) == (64, 64)
  assert -2 <= cut.left <= box[0] and box[2] <= cut.left + 64 <= 150
  assert 3 <= cut.top <= box[1] and box[3] <= cut.top + 64 <= 120


def test_a_window_larger_than_the_photograph_is_cut() -> None:
  cut = place_window(
    CropWindow(side=140, scale=1.0, limit=999), PINHOLE, np.array([20.0, 10, 90, 100])
  )
  assert (cut.width, cut.height, cut.top) == (140, 117, 3)
  np.testing.assert_allclose(cut.intrinsics(PINHOLE)[:2], 200)
