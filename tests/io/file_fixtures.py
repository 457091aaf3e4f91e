"""Writers of small files of every kind that is read, and of broken ones."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse.errors import InputError


def refused(call: Callable[[], Any], path: str, field: str) -> str:
  """Returns the problem of the InputError that a call raises, after checking its other parts.

  Args:
    call: raises InputError with a message of one line.
    path: part of the file that the error names.
    field: part of the field that the error names.
  """
  with pytest.raises(InputError) as caught:
    call()
  message = str(caught.value)
  assert "\n" not in message, message
  assert len(message) < 600, message
  assert path in caught.value.path, message
  assert field in caught.value.field, message
  return caught.value.problem


def touch(path: pathlib.Path) -> pathlib.Path:
  """Creates an empty file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b"")
  return path


def write_image(path: pathlib.Path, size: tuple[int, int], mode: str = "RGBA") -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new(mode, size).save(path)
  return path


def write_huge_header(path: pathlib.Path, side: int = 20_000) -> pathlib.Path:
  """Writes a PNG without pixels whose header claims side x side of them."""
  path.parent.mkdir(parents=True, exist_ok=True)
  header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
  data = b"\x89PNG\r\n\x1a\n"
  for body in (b"IHDR" + header, b"IDAT" + bytes(8), b"IEND"):
    data += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
  path.write_bytes(data)
  return path


def write_video(
  path: pathlib.Path,
  frames: list[np.ndarray],
  *,
  rate: int = 25,
  gop: int = 12,
  b_frames: int = 2,
  times: list[int] | None = None,
) -> pathlib.Path:
  """Writes an h264 file.

  Args:
    path: the file.
    frames: (H, W) or (H, W, 3) uint8 images.
    rate: frames a second.
    gop: largest distance of key frames.
    b_frames: largest number of B frames in a row.
    times: presentation times of the frames, in frames; by default 0, 1, 2 ...
  """
  av = pytest.importorskip("av")

  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt, stream.gop_size = "yuv420p", gop
    stream.codec_context.max_b_frames = b_frames
    stream.options = {"crf": "12"}
    for i, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, format="gray" if image.ndim == 2 else "rgb24")
      frame.pts = i if times is None else times[i]
      for packet in stream.encode(frame):
        container.mux(packet)
    for packet in stream.encode():
      container.mux(packet)
  return path


def write_mat(path: pathlib.Path, data: dict[str, Any], version: str = "5") -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  if version == "7.3":
    return _write_mat73(path, data)
  scipy_io = pytest.importorskip("scipy.io")
  scipy_io.savemat(path, {k: _cells(v) for k, v in data.items()}, do_compression=version == "7")
  return path


def _cells(value: Any) -> Any:
  """Lists as MATLAB's cells, a column, or a row where they hold text."""
  if not isinstance(value, list):
    return value
  cell = np.empty((len(value), 1), object)
  cell[:, 0] = value
  return cell.T if value and isinstance(value[0], str) else cell


def _write_mat73(path: pathlib.Path, data: dict[str, Any]) -> pathlib.Path:
  """MATLAB's own layout: classes as attributes, cells as references, text as uint16, arrays .T."""
  h5py = pytest.importorskip("h5py")
  with h5py.File(path, "w", userblock_size=512) as file:
    references = file.create_group("#refs#")

    def put(group: Any, key: str, value: Any) -> Any:
      if isinstance(value, dict):
        node = group.create_group(key)
        for name, entry in value.items():
          put(node, name, entry)
        kind = "struct"
      elif isinstance(value, str):
        node = group.create_dataset(key, data=np.array([[ord(c)] for c in value], np.uint16))
        kind = "char"
      elif isinstance(value, list):
        items = [put(references, f"a{len(references)}", v).ref for v in value]
        cell = np.array(items, h5py.ref_dtype).reshape(1, -1)
        node = group.create_dataset(key, data=cell, dtype=h5py.ref_dtype)
        kind = "cell"
      else:
        node = group.create_dataset(key, data=np.asarray(value).T)
        kind = {"float64": "double", "float32": "single"}.get(str(node.dtype), str(node.dtype))
      node.attrs["MATLAB_class"] = np.bytes_(kind)
      return node

    for key, value in data.items():
      put(file, key, value)
  with path.open("r+b") as raw:
    raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
  return path
