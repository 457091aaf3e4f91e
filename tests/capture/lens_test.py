"""Undistortion: exact geometry, native detail, each pixel looked up once, and no background."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.lens import CropRegion
from jaxsplat_mouse.capture.rig import Rig, distort, project_points
from tests.capture.recording_fixtures import HEIGHT, LENS, VIEWS, WIDTH, make_rig

cv2 = pytest.importorskip("cv2")
SIZE = (WIDTH, HEIGHT)


def whole(pinhole: lens.Pinhole) -> CropRegion:
  x0, y0, x1, y1 = pinhole.seen
  return CropRegion(left=x0, top=y0, width=x1 - x0, height=y1 - y0)


def test_undistort_inverts_distort() -> None:
  points = np.random.default_rng(0).uniform(-0.33, 0.33, (500, 2))
  np.testing.assert_allclose(lens.undistort(distort(points, LENS), LENS), points, atol=1e-9)


def test_where_the_lens_folds_there_is_no_inverse() -> None:
  assert np.isnan(lens.undistort(np.array([0.9, 0.9]), LENS)).all()


def disc(width: int, height: int, centre: np.ndarray, sigma: float = 2.5) -> np.ndarray:
  """A smooth spot whose centroid is `centre`, pixel centres at +0.5."""
  y, x = np.mgrid[:height, :width] + 0.5
  return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.4])
@pytest.mark.parametrize("view", range(VIEWS))
def test_projected_points_land_where_the_pinhole_sees_them(view: int, scale: float) -> None:
  """A spot drawn in the raw image lands within 0.05 px, with skew and tangential distortion."""
  rig = make_rig()
  points = np.array([[0.0, 0, 20], [45, -30, 5], [-40, 38, 50], [10, 52, 12], [-50, -20, 0]])
  raw = project_points(rig, points)[view]
  pinhole = lens.make_pinhole(rig, view, SIZE)
  fx, fy, cx, cy = dataclasses.replace(whole(pinhole), scale=scale).intrinsics(pinhole)
  seen = points @ rig.world_to_camera[view, :3, :3].T + rig.world_to_camera[view, :3, 3]
  wanted = np.stack([fx * seen[:, 0] / seen[:, 2] + cx, fy * seen[:, 1] / seen[:, 2] + cy], -1)
  full = whole(pinhole)
  cut = dataclasses.replace(
    full, width=int(full.width * scale), height=int(full.height * scale), scale=scale
  )
  found = []
  for spot in raw:
    # a spot of the raw image is bent a little by the lens; small ones keep their centroid
    image = lens.resample(
      disc(WIDTH, HEIGHT, spot),
      lens.lookup_points(rig, view, pinhole, cut),
      (cut.height, cut.width),
    )
    y, x = np.mgrid[: cut.height, : cut.width] + 0.5
    found.append([(image * x).sum() / image.sum(), (image * y).sum() / image.sum()])
  assert np.abs(np.array(found) - wanted).max() < 0.05


def test_the_recipe_of_opencv_with_skew_is_met() -> None:
  """The pinhole image of K itself, skew included, made with OpenCV's own model."""
  rig = make_rig()
  k = rig.matrices[0].copy()
  k[:2, 2] -= 0.5  # OpenCV counts from pixel centres
  mx, my = cv2.initUndistortRectifyMap(
    np.eye(3), rig.distortion[0], None, k, (WIDTH, HEIGHT), cv2.CV_32FC1
  )
  recipe = np.stack([k[0, 0] * mx + k[0, 1] * my + k[0, 2], k[1, 1] * my + k[1, 2]], -1)
  pinhole = lens.Pinhole(
    intrinsics=np.array([k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5]), seen=(0, 0, *SIZE)
  )
  own = lens.lookup_points(rig, 0, pinhole, CropRegion(left=0, top=0, width=WIDTH, height=HEIGHT))
  # `initUndistortRectifyMap` takes K with its skew as the new camera: undo that share of it
  y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
  v = (y - k[1, 2]) / k[1, 1]
  shifted = lens.lookup_points(
    rig, 0, pinhole, CropRegion(left=0, top=0, width=WIDTH, height=HEIGHT)
  )
  points = np.stack([(x - k[0, 2] - k[0, 1] * v) / k[0, 0], v], -1)
  shifted = distort(points, rig.distortion[0]) @ rig.matrices[0][:2, :2].T + rig.matrices[0][:2, 2]
  np.testing.assert_allclose(shifted - 0.5, recipe, atol=2e-3)
  assert np.abs(own - 0.5 - recipe).max() < abs(k[0, 1])


def test_no_detail_of_the_raw_pixels_is_lost() -> None:
  """Neighbouring pixels of the pinhole are never more than a raw pixel apart."""
  rig = make_rig()
  pinhole = lens.make_pinhole(rig, 0, SIZE)
  points = lens.lookup_points(rig, 0, pinhole, whole(pinhole))
  steps = [np.linalg.norm(np.diff(points, axis=axis), axis=-1) for axis in (0, 1)]
  assert max(s.max() for s in steps) < 1.01
  assert max(s.max() for s in steps) > 0.97  # nor is it blown up for nothing


def test_a_clean_pinhole_is_copied_to_the_bit() -> None:
  rig = make_rig(lens=False)
  pinhole = lens.make_pinhole(rig, 1, SIZE)
  raw = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), np.float32)
  cut = CropRegion(left=17, top=9, width=60, height=40)
  found = lens.resample(raw, lens.lookup_points(rig, 1, pinhole, cut), (40, 60))
  np.testing.assert_array_equal(found, raw[9:49, 17:77])
  np.testing.assert_array_equal(cut.intrinsics(pinhole)[2:], rig.matrices[1][:2, 2] - [17, 9])


def test_what_is_seen_lies_inside_the_photograph() -> None:
  rig = make_rig()
  pinhole = lens.make_pinhole(rig, 2, SIZE)
  points = lens.lookup_points(rig, 2, pinhole, whole(pinhole))
  assert points.min() >= -1e-6
  assert points[..., 0].max() <= WIDTH and points[..., 1].max() <= HEIGHT


def test_intrinsics_of_other_images_are_refused() -> None:
  """Halved intrinsics make the polynomial fold inside the photograph."""
  rig = make_rig()
  matrices = rig.matrices.copy()
  matrices[:, :2] /= 4
  with pytest.raises(ValueError, match="Camera1: the lens model folds back"):
    lens.make_pinhole(dataclasses.replace(rig, matrices=matrices), 0, SIZE)


def test_no_background_comes_into_the_edge() -> None:
  """A soft edge over green: every visible pixel of the crop has the animal's red."""
  rig = make_rig()
  pinhole = lens.make_pinhole(rig, 0, SIZE)
  alpha = np.clip((disc(WIDTH, HEIGHT, np.array([70.0, 60.0]), 18.0) - 0.4) * 4, 0, 1)
  color = np.where(alpha[..., None] > 0, [0.8, 0.2, 0.1], [0.0, 1.0, 0.0])
  cut = whole(pinhole)
  rgba = lens.resample_rgba(
    color, alpha, lens.lookup_points(rig, 0, pinhole, cut), (cut.height, cut.width)
  )
  assert rgba[..., 3].max() == 255 and (rgba[..., 3] == 0).any()
  assert not rgba[rgba[..., 3] == 0].any()
  shown = rgba[rgba[..., 3] > 20][:, :3]
  assert np.abs(shown - np.array([204, 51, 25.5])).max() <= 2


def test_a_real_lens_of_the_capture(shared_dir: pathlib.Path) -> None:
  """The capture's exact recipe and ours put the same raw pixels into the same places."""
  scipy_io = pytest.importorskip("scipy.io")
  path = shared_dir / "data" / "capture_spot" / "label3d_dannce.mat"
  if not path.is_file():
    pytest.skip(f"needs {path}")
  for cell in scipy_io.loadmat(path)["params"][:, 0]:
    p = cell[0, 0]
    k, r, t = p["K"].T.astype(float), p["RDistort"].ravel(), p["TDistort"].ravel()
    d = np.array([r[0], r[1], t[0], t[1], r[2]], float)
    mx, my = cv2.initUndistortRectifyMap(np.eye(3), d, None, k, (1152, 1024), cv2.CV_32FC1)
    recipe = np.stack([k[0, 0] * mx + k[0, 1] * my + k[0, 2], k[1, 1] * my + k[1, 2]], -1)
    matrix = k.copy()
    matrix[:2, 2] += 0.5
    rig = Rig(
      names=("a",),
      matrices=matrix[None],
      world_to_camera=np.eye(4)[None],
      distortion=d[None],
      sizes=np.array([[1152, 1024]]),
    )
    # The recipe's pixel (i, j) is the pinhole's of K, skew in: where is that in the raw image?
    pixels = np.stack(np.meshgrid(np.arange(0, 1152, 64.0), np.arange(0, 1024, 64.0)), -1)
    rays = (pixels - k[:2, 2]) @ np.linalg.inv(k[:2, :2]).T
    pinhole = lens.make_pinhole(rig, 0, (1152, 1024))
    there = rays * pinhole.intrinsics[:2] + pinhole.intrinsics[2:]
    raw = distort((there - pinhole.intrinsics[2:]) / pinhole.intrinsics[:2], d)
    raw = raw @ matrix[:2, :2].T + matrix[:2, 2]
    assert np.abs(raw - 0.5 - recipe[::64, ::64]).max() < 2e-3
    back = lens.to_pinhole(rig, 0, pinhole, raw)
    inside = np.abs(rays).max(-1) < 0.3
    assert np.abs(back - there)[inside].max() < 1e-6
