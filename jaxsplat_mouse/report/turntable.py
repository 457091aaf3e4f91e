"""Turntable videos: the views of a scene in the dataset, once around the animal, as an MP4."""

from __future__ import annotations

import io
import pathlib
from types import ModuleType

import numpy as np
from absl import logging

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import contact_sheet

TURNTABLES_FOLDER = "turntables"
_FRAMES_PER_SECOND = 16
_QUALITY = "20"  # constant rate factor of x264; 18 is visually lossless


def import_video_library() -> ModuleType:
  """Returns PyAV.

  Raises:
    ConfigError: PyAV is not installed.
  """
  try:
    import av
  except ImportError:
    raise ConfigError(
      "report.turntable: needs PyAV; expected pip install 'jaxsplat-mouse[video]'"
    ) from None
  return av


def write_turntable(folder: pathlib.Path, name: str, rgba: np.ndarray) -> None:
  """Writes `turntables/NAME.mp4`, cut to the animal; logs a warning where the disk refuses it.

  Args:
    folder: of the report.
    name: of the scene.
    rgba: views once around, straight RGBA uint8 (V, S, S, 4).

  Raises:
    ConfigError: PyAV is not installed.
  """
  path = folder / TURNTABLES_FOLDER / f"{name}.mp4"
  # One box for all views, so that the animal does not jump.
  x0, y0, x1, y1 = contact_sheet.animal_box([view[..., 3] / 255.0 for view in rgba])
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, encode_mp4(rgba[:, y0:y1, x0:x1]))
  except OSError as error:
    logging.warning("%s: the turntable was not written (%s)", path, error.strerror)


def encode_mp4(rgba: np.ndarray) -> bytes:
  """Encodes straight RGBA views, uint8 (V, H, W, 4), on white as H.264.

  H.264 takes even sides only: odd ones lose their last pixel.
  """
  av = import_video_library()
  height, width = (side - side % 2 for side in rgba.shape[1:3])
  buffer = io.BytesIO()
  with av.open(buffer, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND, options={"crf": _QUALITY})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    for view in rgba:
      image = contact_sheet.rgba_to_rgb(view)[:height, :width]
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return buffer.getvalue()
