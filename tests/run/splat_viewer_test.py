"""The browser viewer: its splats, its cameras, its first view, and its page."""

from __future__ import annotations

import pathlib
import shutil
import sys
import urllib.request

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians2D
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run import splat_viewer


def test_discs_become_thin_ellipsoids_with_their_colour() -> None:
  discs = Gaussians2D(
    means=np.zeros((1, 3), np.float32),
    log_scales=np.log(np.array([[0.2, 0.1]], np.float32)),
    quats=np.array([[1.0, 0.0, 0.0, 0.0]], np.float32),
    logit_opacities=np.zeros(1, np.float32),
    sh=np.full((1, 1, 3), 0.25 / 0.28209479, np.float32),
  )
  splats = splat_viewer.to_splat_cloud(discs)
  np.testing.assert_allclose(splats.covariances[0], np.diag([0.04, 0.01, 0.0]), atol=1e-6)
  np.testing.assert_allclose(splats.colors, 0.75, atol=1e-6)
  np.testing.assert_allclose(splats.opacities, [[0.5]])


def test_frusta_stand_where_the_cameras_are_and_look_at_the_animal() -> None:
  cameras = generate_camera_poses(8, image_size=64)
  image = np.zeros((640, 640, 3), np.uint8)
  frusta = splat_viewer.to_frusta(cameras, [image] * 8)
  for one in frusta:
    w, x, y, z = one.wxyz
    forward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    np.testing.assert_allclose(one.position / 2.7, -forward, atol=1e-5)
    assert one.fov == pytest.approx(np.radians(50)) and one.aspect == 1
    assert one.image is not None and one.image.shape == (320, 320, 3)


def test_the_first_position_is_between_two_cameras() -> None:
  ring = np.linalg.inv(np.asarray(generate_camera_poses(6).world_to_camera))[:, :3, 3]
  look = np.array(splat_viewer.first_position(list(ring)))
  assert np.linalg.norm(look) == pytest.approx(2.7, abs=1e-5)
  azimuth = np.degrees(np.arctan2(look[1], look[0])) % 60.0
  assert azimuth == pytest.approx(30.0, abs=1e-3)
  one_side = [np.array([1.0, y, 0.5]) for y in (-1.0, 1.0)]
  assert splat_viewer.first_position(one_side)[0] < -1.0  # on the other side
  assert splat_viewer.first_position([])[2] > 0


def test_a_path_without_fits_is_an_error(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r"no fit in it; expected FILE\.ply"):
    splat_viewer.StoredFits(tmp_path)


def test_the_fits_of_a_run_one_fit_and_a_ply(
  undisturbed_workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  fits = splat_viewer.StoredFits(undisturbed_workdir)
  assert fits.names == ["mouse_0", "mouse_1"]
  splats, frusta, note = fits.load("mouse_0")
  assert len(splats.centers) == len(splats.covariances) > 0 and not note
  assert len(frusta) == len(input_cameras(image_size=36))
  one = splat_viewer.StoredFits(undisturbed_workdir / "fits" / "mouse_1")
  assert one.names == ["mouse_1"]
  shutil.copy(undisturbed_workdir / "fits" / "mouse_1" / "gaussians.ply", tmp_path / "my.ply")
  splats, frusta, note = splat_viewer.StoredFits(tmp_path / "my.ply").load("my")
  assert len(splats.centers) and not frusta and note


def test_the_page_is_served_to_this_machine(undisturbed_workdir: pathlib.Path) -> None:
  pytest.importorskip("viser", reason="needs the extra `viewer`")
  page = splat_viewer.SplatViewer(splat_viewer.StoredFits(undisturbed_workdir), 0)
  try:
    assert page.url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(page.url, timeout=20) as answer:
      assert answer.status == 200
    page._scene.value = "mouse_1"
    page.show()
    assert "mouse_1" in page._note.content
  finally:
    page.server.stop()


def test_without_viser_the_extra_is_named(
  undisturbed_workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "viser", None)
  with pytest.raises(InputError, match=r"pip install 'jaxsplat-mouse\[viewer\]'"):
    splat_viewer.SplatViewer(splat_viewer.StoredFits(undisturbed_workdir), 0)
