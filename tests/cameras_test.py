"""Cameras: FaceLift's orbit to the letter, look_at, rays."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras

# Camera 0 and camera 5 of the orbit that FaceLift ships (data_sample/gslrm/sample_000).
_SHIPPED = {
  0: [[0.0, 1.0, 0.0, 0.0], [0.3420201, 0.0, -0.9396926, 0.0], [-0.9396926, 0.0, -0.3420201, 2.7]],
  8: [[-1.0, 0.0, 0.0, 0.0], [0.0, 0.3420201, -0.9396926, 0.0], [0.0, -0.9396926, -0.3420201, 2.7]],
}


def test_orbit_equals_stored_cameras():
  orbit = cameras.generate_camera_poses()
  assert len(orbit) == 32 and (orbit.width, orbit.height) == (512, 512)
  for index, rows in _SHIPPED.items():
    np.testing.assert_allclose(orbit.world_to_camera[index, :3], rows, atol=1e-5)
  np.testing.assert_allclose(
    orbit.intrinsics, np.tile([548.9937744140625, 548.9937744140625, 256, 256], (32, 1)), atol=1e-4
  )


def test_orbit_equals_shipped_scene(shared_dir):
  path = shared_dir / "data/facelift_head/target/opencv_cameras.json"
  frames = json.loads(path.read_text())["frames"]
  orbit = cameras.generate_camera_poses()
  np.testing.assert_allclose(orbit.world_to_camera, [f["w2c"] for f in frames], atol=1e-5)


def test_centers_and_rotations():
  orbit = cameras.generate_camera_poses(5, elevation=-10.0, distance=3.5)
  np.testing.assert_allclose(np.linalg.norm(orbit.centers, axis=-1), 3.5, rtol=1e-6)
  rotations = orbit.world_to_camera[:, :3, :3]
  np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-6)


def test_look_at_refuses_views_along_up():
  with pytest.raises(ValueError, match="parallel"):
    cameras.look_at([0.0, 0.0, 2.0])


def test_rays_project_back_to_their_pixels():
  camera = cameras.Cameras(
    world_to_camera=jnp.asarray(cameras.look_at([1.0, -2.0, 0.7]), jnp.float32),
    intrinsics=jnp.array([30.0, 34.0, 5.5, 11.0]),
    width=12,
    height=9,
  )
  origin, directions = cameras.pixel_rays(camera)
  assert directions.shape == (9, 12, 3)
  points = origin + 1.7 * directions
  view = np.asarray(camera.world_to_camera)
  local = np.asarray(points) @ view[:3, :3].T + view[:3, 3]
  np.testing.assert_allclose(local[..., 2], 1.7, rtol=1e-5)
  x = local[..., 0] / local[..., 2] * 30.0 + 5.5
  y = local[..., 1] / local[..., 2] * 34.0 + 11.0
  np.testing.assert_allclose(x, np.broadcast_to(np.arange(12) + 0.5, (9, 12)), atol=1e-4)
  np.testing.assert_allclose(y, np.broadcast_to((np.arange(9) + 0.5)[:, None], (9, 12)), atol=1e-4)


def test_resized_keeps_the_view():
  orbit = cameras.generate_camera_poses(2).resized(256, 128)
  assert (orbit.width, orbit.height) == (256, 128)
  np.testing.assert_allclose(orbit.intrinsics[0], [274.49689, 137.24844, 128, 64], rtol=1e-5)
