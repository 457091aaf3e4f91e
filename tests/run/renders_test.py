"""Rendering for files: padding, parts, several image sizes, room that grows."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset.writer import to_rgba8
from jaxsplat_mouse.rendering import render_views
from jaxsplat_mouse.run import renders
from tests.splat_fixtures import random_gaussians


def splats(flat: bool = False):
  return jax.tree.map(np.asarray, random_gaussians(flat=flat))


@pytest.mark.parametrize("flat", [False, True])
def test_padding_and_parts_change_nothing(flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(renders, "_PIXELS_AT_ONCE", {"cpu": 2 * 64 * 64})
  cameras = generate_camera_poses(5, image_size=24)
  rgba = renders.render_rgba(splats(flat), cameras)
  whole = render_views(splats(flat), cameras)
  expected = to_rgba8(np.asarray(whole.rgb), np.asarray(whole.alpha))
  assert rgba.shape == (5, 24, 24, 4)
  assert np.abs(rgba.astype(int) - expected).max() <= 1


def test_invisible_splats_are_dropped_and_one_is_always_left() -> None:
  gaussians = splats()
  count = len(gaussians.means)
  logits = np.linspace(-12, 5, count).astype(np.float32)
  gaussians = type(gaussians)(**{**gaussians.__dict__, "logit_opacities": logits})
  kept = renders.drop_invisible(gaussians, np.arange(count) % 2 == 0)
  shown = (1 / (1 + np.exp(-logits.astype(np.float64))) >= 1 / 255) & (np.arange(count) % 2 == 0)
  np.testing.assert_array_equal(kept.means, gaussians.means[shown])
  assert len(renders.drop_invisible(gaussians, np.zeros(count, bool)).means) == 1


def test_a_count_of_the_bucket_is_kept() -> None:
  padded = renders.pad_gaussians(splats())
  assert len(padded.means) == 4096
  assert len(renders.pad_gaussians(padded).means) == 4096


def test_groups_come_back_in_the_order_of_the_views() -> None:
  small, large = generate_camera_poses(3, image_size=16), generate_camera_poses(3, image_size=24)
  groups = [
    (np.array([0, 2]), small[np.array([0, 2])]),
    (np.array([1]), large[np.array([1])]),
  ]
  images = renders.render_groups(splats(), groups)
  assert [image.shape[0] for image in images] == [16, 24, 16]
  np.testing.assert_array_equal(images[2], renders.render_rgba(splats(), small)[2])


def test_room_grows_until_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
  cameras = generate_camera_poses(2, image_size=24)
  expected = renders.render_rgba(splats(), cameras)
  monkeypatch.setattr(renders, "default_capacity", lambda count: 64)
  np.testing.assert_array_equal(renders.render_rgba(splats(), cameras), expected)


def test_many_image_sizes_share_a_program(caplog: pytest.LogCaptureFixture) -> None:
  """Thirty sizes between 65 and 94 pixels: one program, and the pixels of exact sizes.

  The splats are inside the images. Of a splat centred far outside, `projection` clamps the slope to
  a frustum that grows with the image, so that its edge may differ by some levels.
  """
  sizes = range(65, 95)
  groups = []
  for i, size in enumerate(sizes):
    camera = generate_camera_poses(30, image_size=size)[np.array([i])]
    groups.append((np.array([i]), dataclasses.replace(camera, height=size + 1)))
  with jax.log_compiles(True), caplog.at_level(logging.WARNING):
    images = renders.render_groups(splats(), groups)
  compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
  assert sum("_render_views" in line for line in compiled) <= 1
  assert [image.shape[:2] for image in images] == [(size + 1, size) for size in sizes]
  whole = render_views(splats(), groups[7][1])
  exact = to_rgba8(np.asarray(whole.rgb), np.asarray(whole.alpha))[0]
  assert np.abs(images[7].astype(int) - exact).max() <= 1
