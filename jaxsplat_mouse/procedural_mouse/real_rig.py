"""The geometry of a real rig around a built-in mouse: six cameras, uneven in every respect.

The numbers are those of the calibration published with DANNCE (`third_party/dannce_rig.md`); lens
distortion and skew are left out, because the built-in photographs come from pinhole cameras.
"""

from __future__ import annotations

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.mouse import RADIUS

_WIDTH, _HEIGHT = 1152, 1024
_MOUSE_RADIUS = 99.0  # mm, tail included: the largest distance of a label from their mean
_MOUSE_CENTER = np.array([56.5, 63.1, 24.5])  # mm, the mean of all labels of the first recording

# fx fy cx cy in pixels, the first pixel's centre at 0.
_INTRINSICS = np.array(
  [
    [1667.663, 1674.174, 603.882, 492.965],
    [1637.431, 1648.596, 618.453, 433.268],
    [1656.993, 1665.109, 617.024, 479.936],
    [1668.696, 1674.157, 583.366, 549.915],
    [1665.314, 1671.864, 639.549, 460.602],
    [1668.247, 1673.122, 613.531, 523.326],
  ]
)
# World to camera, OpenCV axes, z up, mm.
_ROTATIONS = np.array(
  [
    [[0.576922, -0.816681, -0.013916], [0.002681, 0.018931, -0.999817],
     [0.816795, 0.576779, 0.013111]],
    [[-0.49706, 0.867231, 0.029006], [0.190703, 0.141792, -0.971354],
     [-0.846501, -0.47729, -0.235862]],
    [[-0.998116, -0.057544, -0.021273], [0.020385, 0.015971, -0.999665],
     [0.057864, -0.998215, -0.014768]],
    [[0.396495, 0.917997, 0.008616], [0.016854, 0.002105, -0.999856],
     [-0.917882, 0.396583, -0.014637]],
    [[-0.410332, -0.911913, 0.006514], [-0.253174, 0.107052, -0.961479],
     [0.876088, -0.396175, -0.274799]],
    [[0.981472, 0.190933, -0.016063], [0.05699, -0.370936, -0.926908],
     [-0.182935, 0.908819, -0.374944]],
  ]
)  # fmt: skip
_TRANSLATIONS = np.array(
  [
    [10.339, 66.415, 236.699],
    [-32.406, 49.665, 410.19],
    [45.989, 64.995, 354.835],
    [-70.506, 57.872, 327.553],
    [57.159, 60.497, 307.229],
    [-64.82, 50.925, 294.387],
  ]
)


def dannce_cameras(width: int = 576) -> Cameras:
  """Returns six cameras that stood around a real mouse, in the world of the built-in mice.

  The real mouse's centre becomes the origin and its radius `RADIUS`; images keep the shape 9 : 8.

  Args:
    width: of the images, pixels; a multiple of 9.
  """
  scale = RADIUS / _MOUSE_RADIUS
  poses = np.tile(np.eye(4), (6, 1, 1))
  poses[:, :3, :3] = _ROTATIONS
  poses[:, :3, 3] = scale * (_ROTATIONS @ _MOUSE_CENTER + _TRANSLATIONS)
  intrinsics = _INTRINSICS + np.array([0.0, 0.0, 0.5, 0.5])
  return Cameras(
    world_to_camera=poses.astype(np.float32),
    intrinsics=(intrinsics * (width / _WIDTH)).astype(np.float32),
    width=width,
    height=width * _HEIGHT // _WIDTH,
  )
