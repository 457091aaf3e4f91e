"""Masks from a codec: coverage at the outline, nothing but the animal; and the animal's colour."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse.capture.mattes import (
  border_share,
  clean_mask,
  foreground_color,
  grow_mask,
  silhouette_box,
)

pytest.importorskip("cv2")


def soft_disc(radius: float = 40.0, side: int = 128) -> np.ndarray:
  """Exact coverage of a disc, to a sixteenth of a pixel, uint8."""
  x = (np.arange(side * 8) + 0.5) / 8 - side / 2
  inside = np.hypot(x[:, None], x[None]) < radius
  return (inside.reshape(side, 8, side, 8).mean((1, 3)) * 255 + 0.5).astype(np.uint8)


def noisy(levels: np.ndarray) -> np.ndarray:
  noise = np.random.default_rng(0).integers(-9, 10, levels.shape)
  return np.clip(levels.astype(int) + noise, 0, 255).astype(np.uint8)


def test_noise_goes_and_the_outline_stays_soft() -> None:
  true = soft_disc()
  found = clean_mask(noisy(true))
  assert (found[true == 0] <= 25).all() and (found[true == 255] >= 230).all()
  far = np.hypot(*(np.mgrid[:128, :128] - 63.5))
  assert not found[far > 44].any() and (found[far < 36] == 255).all()
  edge = (true > 40) & (true < 215)
  assert np.abs(found[edge].astype(int) - true[edge]).mean() < 12
  assert abs(found.sum() / true.sum() - 1) < 0.005


def test_specks_and_pinholes_are_repaired_and_limbs_are_not() -> None:
  levels = soft_disc()
  levels[4:7, 4:7] = 255  # an island of 9 px
  levels[60:63, 60:64] = 0  # a hole of 12 px
  levels[110:120, 100:110] = 255  # a part of 100 px: a tail cut off by a leg
  levels[70:82, 50:62] = 0  # daylight of 144 px
  found = clean_mask(levels)
  assert not found[:12, :12].any()
  assert (found[58:65, 58:66] == 255).all()
  assert found[115, 105] == 255 and found[76, 56] == 0


def test_larger_ones_are_repaired_on_request() -> None:
  levels = soft_disc()
  levels[110:120, 100:110] = 255  # 100 px beside a disc of 5,027
  levels[70:82, 50:62] = 0
  np.testing.assert_array_equal(clean_mask(levels, 0.05), clean_mask(soft_disc()))


@pytest.mark.parametrize("pixels", [-3, -2, -1, 1, 2, 3])
def test_an_outline_moves_by_so_many_pixels_and_stays_soft(pixels: int) -> None:
  found = grow_mask(soft_disc(40.0), pixels)
  area = found.sum() / 255
  assert abs(np.sqrt(area / np.pi) - (40.0 + pixels)) < 0.25
  assert ((found > 20) & (found < 235)).sum() > 100


def test_an_outline_stays_without_grow_and_at_the_border() -> None:
  whole = np.full((32, 32), 255, np.uint8)
  np.testing.assert_array_equal(grow_mask(whole, -4), whole)
  np.testing.assert_array_equal(grow_mask(soft_disc(), 0), soft_disc())


def test_label_images_of_0_and_1_are_masks() -> None:
  labels = (soft_disc() > 127).astype(np.uint8)
  np.testing.assert_array_equal(clean_mask(labels), clean_mask(labels * np.uint8(255)))
  assert not clean_mask(2 * labels).any()  # no label is known to be the animal


def test_the_share_of_the_border_reveals_inverted_masks() -> None:
  levels = soft_disc()
  assert border_share(levels) == 0 and border_share(255 - levels) == 1
  levels[:, :64] = 255
  assert abs(border_share(levels) - 0.5) < 0.01


def test_an_empty_mask_stays_empty() -> None:
  levels = np.full((20, 30), 90, np.uint8)  # below the threshold everywhere
  assert not clean_mask(levels).any()
  assert silhouette_box(clean_mask(levels)) is None


def test_a_lone_small_animal_is_kept() -> None:
  levels = np.zeros((40, 40), np.uint8)
  levels[10:13, 20:23] = 255
  assert silhouette_box(clean_mask(levels)) == (20, 10, 23, 13)


def test_outline_pixels_take_the_animals_colour() -> None:
  coverage = soft_disc()
  share = coverage[..., None] / 255.0
  photo = (share * [200, 60, 40] + (1 - share) * [0, 255, 0] + 0.5).astype(np.uint8)
  color = foreground_color(photo, coverage)
  edge = (coverage > 5) & (coverage < 250)
  assert np.abs(color[edge] * 255 - [200, 60, 40]).max() < 3
  inner = coverage == 255
  assert np.abs(color[inner] * 255 - photo[inner]).max() < 3
