"""Cameras that are frames early or late are found, whatever their poses; rest accuses nobody."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest

from jaxsplat_mouse.capture import frame_offsets
from jaxsplat_mouse.capture.frame_offsets import MovingOutlines
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, trace_outline
from tests.capture import pose_refinement_test as film

pytest.importorskip("cv2")
MOMENTS = 10
SPACING = 17  # frames between moments
Reader = Callable[[np.ndarray], MovingOutlines | None]


def place(frame: float, speed: float) -> np.ndarray:
  """Where the animal is, world units; it moves by about `speed` per frame."""
  return 0.35 * np.array(
    [np.sin(speed * frame / 0.35), np.sin(1.3 * speed * frame / 0.35 + 1), 0.2]
  )


@functools.cache
def traced(view: int, frame: float, speed: float) -> Outlines:
  """Outline of the walking animal in one picture."""
  pose = film.true_poses()[view]
  pose[:3, 3] += pose[:3, :3] @ place(frame, speed)
  alpha = film.silhouette(pose, 0.02 * frame)
  return trace_outline(alpha, film.INTRINSICS, film.FRAME, side=film.SIZE, points=24)


def recording(late: dict[int, float], speed: float = 0.03) -> Reader:
  """Reads the moments of a recording with cameras that are some frames late."""

  def read(offsets: np.ndarray) -> MovingOutlines:
    rows = []
    for moment in range(MOMENTS):
      row = []
      for view in range(film.VIEWS):
        frame = SPACING * moment + offsets[view] - late.get(view, 0)
        row.append(
          frame_offsets.trace_motion(*(traced(view, frame + side, speed) for side in (-1, 0, 1)))
        )
      rows.append(jax.tree.map(lambda *leaves: np.stack(leaves), *row))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

  return read


@pytest.mark.parametrize("late", [{2: 1}, {0: -2, 3: 1}, {}])
def test_late_cameras_are_found_with_wrong_poses(late: dict[int, float]) -> None:
  poses = film.shaken(0.5, seed=1)
  found = frame_offsets.find_offsets(poses, recording(late), stages=film.STAGES)
  expected = [late.get(view, 0) for view in range(film.VIEWS)]
  np.testing.assert_array_equal(found.offsets, expected)
  np.testing.assert_allclose(found.lags, expected, atol=0.2)
  assert found.confirmed == bool(late) and found.errors.max() < 0.1
