"""FaceLift scene folders: captures of one moment.

`main` reads such folders itself; through this reader `prepare` checks their calibration and crops
their images. Poses are OpenCV's world-to-camera and pixel centres are at +0.5 already, up is +z,
and the scene has no unit. A size that the camera file lacks is read from the image's header.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from jaxsplat_mouse.capture import rig_checks
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.io import checks, images


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a scene folder, whose images carry their silhouettes.

  Raises:
    InputError: the camera file is missing, broken or contradictory, or names an image outside of
      the folder.
  """
  path = pathlib.Path(path)
  file = path / camera_file.CAMERAS_FILE
  parsed = camera_file.parse(file)
  fields = [f"frames[{i}].file_path" for i in range(len(parsed.names))]
  files = [
    checks.path_inside(path, name, file, field)
    for name, field in zip(parsed.names, fields, strict=True)
  ]
  real = [images.read_image_size(image, f) for image, f in zip(files, fields, strict=True)]
  for size, stated, field in zip(real, parsed.sizes, fields, strict=True):
    checks.check_same_size(file, field, size, (int(stated[0]), int(stated[1])))
  matrices = np.tile(np.eye(3), (len(files), 1, 1))
  matrices[:, [0, 1], [0, 1]] = parsed.intrinsics[:, :2]
  matrices[:, :2, 2] = parsed.intrinsics[:, 2:]
  rig = Rig(
    names=checks.camera_names(parsed.names),
    matrices=matrices,
    world_to_camera=parsed.world_to_camera,
    distortion=np.zeros((len(files), 5)),
    sizes=np.array(real),
  )
  return Capture(
    path=path,
    rig=rig_checks.check_rig(file, rig),
    pictures=tuple(Stream(images=(image,)) for image in files),
    masks=None,
    frames=np.zeros((1, len(files)), np.int64),
    moments=np.zeros(1, np.int64),
    up="+z",
  )
