"""A scene turning once, as an MP4 that loops: the dataset's own views, one after the other."""

from __future__ import annotations

import io
import pathlib
import types

import numpy as np
from absl import logging

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.run.workdir import Workdir

TURNTABLES = "turntables"
_FRAMES_PER_SECOND = 16
_QUALITY = "20"  # of x264; 18 cannot be told from the original


def require() -> types.ModuleType:
  """PyAV.

  Raises:
    ConfigError: it is not installed.
  """
  try:
    import av
  except ImportError:
    raise ConfigError(
      "report.turntable: needs PyAV; expected pip install 'jaxsplat-mouse[video]'"
    ) from None
  return av


def save(workdir: Workdir, name: str, rgba: np.ndarray) -> None:
  """Writes `report/turntables/NAME.mp4`; a scene is done without it.

  Args:
    workdir: the run.
    name: of the scene.
    rgba: uint8 (V, S, S, 4), once around.
  """
  folder = workdir.report / TURNTABLES
  try:
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / f"{name}.mp4", encode(rgba))
  except OSError as error:
    logging.warning("%s: no turntable (%s)", pathlib.Path(folder, name), error.strerror)


def encode(rgba: np.ndarray) -> bytes:
  """MP4 (H.264) of straight RGBA views uint8 (V, H, W, 4) on white; odd sides lose a pixel."""
  av = require()
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
