"""The plate is the scene without the animal, whatever its exposure and however long it walks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")
from jaxsplat_mouse.capture.background_plate import SAMPLES, PlateBuilder, exposure_gain
from tests.capture.matte_fixtures import SIDE, make_alpha, make_plate, move, photograph


def walk(builder: PlateBuilder, masked: bool, moments: int = 12) -> np.ndarray:
  """Adds pictures of an animal that walks around; returns the true plate."""
  plate = make_plate()
  for i in range(moments):
    angle = 2.4 * i
    alpha = make_alpha(80 + 40 * np.cos(angle), 80 + 40 * np.sin(angle))
    photo = photograph(alpha, plate, gain=1 + 0.05 * np.sin(i), shadow=True, seed=i)
    builder.add(photo, move(alpha, -1) if masked else None)
  return plate


@pytest.mark.parametrize("masked", [True, False])
def test_the_animal_leaves_the_plate(masked: bool) -> None:
  builder = PlateBuilder()
  true = walk(builder, masked)
  plate = builder.build()
  assert plate.known.mean() > 0.97 and plate.moments == 12
  off = np.abs(plate.color - true * exposure_gain(plate.color.astype(np.uint8), true, plate.known))
  assert np.median(off[plate.known]) < 2 and np.percentile(off[plate.known], 95) < 9
  assert 1.5 < np.median(plate.spread) < 5


def test_gains_are_relative_to_the_first_picture() -> None:
  builder = PlateBuilder()
  walk(builder, True)
  np.testing.assert_allclose(builder.gains, 1 + 0.05 * np.sin(np.arange(12)), atol=0.02)


def test_what_is_never_seen_is_unknown() -> None:
  builder = PlateBuilder()
  alpha = make_alpha()
  for seed in range(5):
    builder.add(photograph(alpha, make_plate(), seed=seed), move(alpha, 0))
  plate = builder.build()
  assert not plate.known[80, 80] and not plate.color[80, 80].any()
  assert plate.known[5, 5]


def test_memory_does_not_grow_with_the_moments() -> None:
  builder = PlateBuilder()
  walk(builder, True, 3)
  before = builder._samples.nbytes
  walk(builder, True, 30)
  assert builder._samples.nbytes == before == SAMPLES * SIDE * SIDE * 3
  assert builder.build().moments == 33
