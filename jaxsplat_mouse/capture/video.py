"""Reads the pictures of a camera by frame number: from videos, with PyAV, or from image files.

A reader holds one picture at a time, so memory does not grow with the recording. Frame numbers are
exact: they are counted from the start of the file, or, after a jump, looked up in a table of the
presentation times of all packets. A jump that does not arrive at the time in the table is undone,
and the file is decoded from its start instead.
"""

from __future__ import annotations

import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import images

_JUMP = 250  # frames ahead from which a jump is tried: a usual distance of key frames
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")


class StreamReader(Protocol):
  """Frames of one stream by number."""

  def read(self, number: int) -> np.ndarray:
    """Returns frame `number`, counted from 0; fast if numbers rise."""

  def close(self) -> None:
    """Closes the file."""


def open_stream(
  stream: Stream, camera: str, *, grey: bool = False, labels: bool = False
) -> StreamReader:
  """Opens a camera's pictures.

  Args:
    stream: the video or the images.
    camera: the camera's name, for messages.
    grey: read (H, W) uint8 levels 0 to 255; otherwise (H, W, 3) RGB, or (H, W, 4) RGBA of images
      that have an alpha channel.
    labels: read (H, W) int32 label ids, which takes images.

  Raises:
    InputError: there is no such file or no video in it, or PyAV is not installed.
  """
  if labels:
    return LabelReader(stream, camera)
  if stream.video is None:
    return ImageReader(stream.images, camera, grey=grey)
  if stream.parts:
    return SplitVideoReader(((0, stream.video), *stream.parts), camera, grey=grey)
  return VideoReader(stream.video, camera, grey=grey)


def require_pyav(path: pathlib.Path) -> None:
  """Checks that videos can be read.

  Raises:
    InputError: PyAV is not installed; the message names `path` as what needs it.
  """
  _load_av(path)


def count_frames(stream: Stream, camera: str = "") -> int:
  """Counts the frames of a stream; of a video, its packets, without decoding.

  Raises:
    InputError: there is no such file or no video in it.
  """
  if stream.video is None:
    return len(stream.images)
  first, path = stream.parts[-1] if stream.parts else (0, stream.video)
  reader = VideoReader(path, camera, grey=True)
  try:
    return first + reader.count()
  finally:
    reader.close()


class ImageReader:
  """Reads image files in the order of their frames."""

  def __init__(self, files: tuple[pathlib.Path, ...], camera: str, *, grey: bool):
    """Takes the files.

    Args:
      files: in the order of their frames.
      camera: the camera's name, for messages.
      grey: see `open_stream`.
    """
    self._files, self._camera, self._grey = files, camera, grey

  def read(self, number: int) -> np.ndarray:
    """Reads one image.

    Raises:
      InputError: there is no such frame, or its file is not an image.
    """
    field = f"{self._camera} frame {number}"
    if not 0 <= number < len(self._files):
      where = self._files[0].parent if self._files else ""
      raise InputError(where, field, f"missing; the camera has {len(self._files)} images")
    image = images.read_image(self._files[number], field, grey_too=True)
    if not self._grey:
      return image if image.ndim == 3 else np.repeat(image[..., None], 3, -1)
    return image if image.ndim == 2 else image[..., 3] if image.shape[2] == 4 else image[..., 1]

  def close(self) -> None:
    """Does nothing: no file is held open."""


class LabelReader:
  """Reads images of label ids in the order of their frames."""

  def __init__(self, stream: Stream, camera: str):
    """Takes the images.

    Args:
      stream: the images.
      camera: the camera's name, for messages.

    Raises:
      InputError: the stream is a video.
    """
    if stream.video is not None:
      problem = "a video, whose codec may change label ids; expected PNG images of them, or a video"
      raise InputError(stream.video, camera, f"{problem} for each animal")
    self._files, self._camera = stream.images, camera

  def read(self, number: int) -> np.ndarray:
    """Reads one image.

    Raises:
      InputError: there is no such frame, or its file has no label ids.
    """
    field = f"{self._camera} frame {number}"
    if not 0 <= number < len(self._files):
      where = self._files[0].parent if self._files else ""
      raise InputError(where, field, f"missing; the camera has {len(self._files)} images")
    return images.read_label_image(self._files[number], field)

  def close(self) -> None:
    """Does nothing: no file is held open."""


class SplitVideoReader:
  """Reads a recording that is split into several files, of which one is open at a time."""

  def __init__(self, parts: Sequence[tuple[int, pathlib.Path]], camera: str, *, grey: bool):
    """Takes the files, each with the number of its first frame; see `open_stream`.

    Args:
      parts: numbers of first frames, rising, and the files.
      camera: the camera's name, for messages.
      grey: see `open_stream`.
    """
    self._parts, self._camera, self._grey = parts, camera, grey
    self._starts = np.array([first for first, _ in parts])
    self._at, self._reader = 0, VideoReader(parts[0][1], camera, grey=grey)

  def read(self, number: int) -> np.ndarray:
    """Decodes up to a frame and returns it.

    Raises:
      InputError: there is no such frame, a part ends before the next begins, or it is damaged.
    """
    at = max(int(np.searchsorted(self._starts, number, "right")) - 1, 0)
    if at != self._at:
      self.close()
      self._reader = VideoReader(self._parts[at][1], self._camera, grey=self._grey)
      self._at = at
    return self._reader.read(number - int(self._starts[at]))

  def close(self) -> None:
    """Closes the open file."""
    self._reader.close()


class VideoReader:
  """Reads one video file."""

  def __init__(self, path: pathlib.Path, camera: str, *, grey: bool):
    """Opens the file.

    Args:
      path: the video.
      camera: the camera's name, for messages.
      grey: see `open_stream`.

    Raises:
      InputError: it cannot be opened, or PyAV is not installed.
    """
    self._av = _load_av(path)
    self._path, self._camera = path, camera
    self._format = "gray" if grey else "rgb24"
    self._times: np.ndarray | None = None  # of all frames, sorted; empty where they are unusable
    self._keys = np.zeros(0, np.int64)
    self._count = 0
    self._container: Any = None
    self._given: tuple[int, np.ndarray] | None = None
    self._open()

  def _open(self) -> None:
    """Opens the file at its first frame."""
    self.close()
    if not self._path.is_file():
      raise InputError(self._path, self._camera, "no such video")
    try:
      self._container = self._av.open(str(self._path))
      self._stream = self._container.streams.video[0]
      width, height = self._stream.codec_context.width, self._stream.codec_context.height
    except (self._av.FFmpegError, IndexError, AttributeError, OSError) as error:
      problem = f"not a readable video ({reason(error)})"
      raise InputError(self._path, self._camera, problem) from None
    images.check_image_size(self._path, self._camera, (width, height))
    self._stream.thread_type = "AUTO"
    self._start()

  def _start(self) -> None:
    """Starts counting at the next frame of the container."""
    self._frames: Iterator[Any] = self._container.decode(self._stream)
    self._next = 0  # number of the next frame
    self._before: int | None = None  # time of the frame before it
    rate, base = self._stream.average_rate, self._stream.time_base
    self._step = round(1 / (rate * base)) if rate and base else 0  # time between frames
    self._waiting: Any = None  # a frame that was decoded in place of a lost one
    self._damage = ""

  def read(self, number: int) -> np.ndarray:
    """Decodes up to a frame and returns it.

    Raises:
      InputError: there is no such frame, or it cannot be decoded.
    """
    field = f"{self._camera} frame {number}"
    if self._given is not None and self._given[0] == number:
      return self._given[1]
    if number < 0:
      raise InputError(self._path, field, "the recording has no frame of this camera")
    frame = self._approach(number) or self._decode_to(number)
    if frame is None or frame.is_corrupt:
      damage = f" ({self._damage})" if self._damage else ""
      if frame is None and number >= self.count():
        raise InputError(self._path, field, f"missing; the video has {self._count} frames")
      raise InputError(self._path, field, f"damaged in the file{damage}")
    self._given = number, frame.to_ndarray(format=self._format)
    return self._given[1]

  def count(self) -> int:
    """Counts the frames of the file by its packets."""
    self._scan()
    return self._count

  def close(self) -> None:
    """Closes the file."""
    if self._container is not None:
      self._container.close()
      self._container = None

  def _scan(self) -> np.ndarray:
    """Returns the sorted presentation times of all frames, from the packets, without decoding."""
    if self._times is not None:
      return self._times
    times, keys = [], []
    try:
      with self._av.open(str(self._path)) as container:
        for packet in container.demux(container.streams.video[0]):
          if packet.size == 0 or packet.is_discard:
            continue
          self._count += 1
          if packet.pts is not None:
            times.append(packet.pts)
            if packet.is_keyframe:
              keys.append(packet.pts)
    except (self._av.FFmpegError, OSError):  # a truncated file ends here; its frames before count
      pass
    table = np.unique(np.array(times, np.int64))
    # Missing or repeated times do not identify frames: such a file is only counted.
    self._times = table if len(table) == self._count else np.zeros(0, np.int64)
    self._keys = np.unique(np.array(keys, np.int64)) if len(self._times) else self._keys
    return self._times

  def _approach(self, number: int) -> Any:
    """Moves towards a frame that is far ahead or behind; returns the frame if it is reached."""
    waiting, self._waiting = self._waiting, None
    if waiting is not None and self._next == number + 1:
      return waiting
    if number < self._next:
      self._open()
    if number - self._next < _JUMP:
      return None
    times = self._scan()
    if number >= len(times):
      return None
    key = self._keys[self._keys <= times[number]]
    if len(key) == 0 or np.searchsorted(times, key[-1]) <= self._next:
      return None
    return self._jump(number, int(key[-1]), int(times[number]))

  def _jump(self, number: int, key: int, wanted: int) -> Any:
    """Seeks a frame through a key frame; returns None, at the file's start, where that fails.

    Args:
      number: of the frame.
      key: presentation time of the key frame before it.
      wanted: presentation time of the frame.
    """
    try:
      self._container.seek(key, stream=self._stream)
      self._start()
      for frame in self._frames:
        if frame.pts == wanted:
          self._next, self._before = number + 1, frame.pts
          return frame
        if frame.pts is None or frame.pts > wanted:
          break
    except self._av.FFmpegError:
      pass
    self._open()
    return None

  def _decode_to(self, number: int) -> Any:
    """Decodes up to frame `number`; returns None at the end of the file or if it was lost."""
    while True:
      try:
        for frame in self._frames:
          self._next = self._number_of(frame) + 1
          if self._next > number:
            self._waiting = frame if self._next > number + 1 else None
            return frame if self._next == number + 1 else None
        return None
      except self._av.FFmpegError as error:
        if isinstance(error, EOFError):
          return None
        # Counting ends at a damaged packet; times identify the frames that follow it.
        self._damage, self._before = reason(error), None
        if not len(self._scan()):
          self._frames = iter(())
          return None
        self._frames = self._container.decode(self._stream)

  def _number_of(self, frame: Any) -> int:
    """Numbers a decoded frame: by counting while the frames come at even times, else by time."""
    first = self._next == 0 and not self._damage
    even = None not in (frame.pts, self._before) and frame.pts - self._before == self._step
    self._before = frame.pts
    if first or even or frame.pts is None or not len(self._scan()):
      return self._next
    return int(np.searchsorted(self._scan(), frame.pts))


def _load_av(path: pathlib.Path) -> types.ModuleType:
  try:
    import av
  except ImportError:
    problem = "reading videos takes PyAV: pip install 'jaxsplat-mouse[video]'"
    raise InputError(path, "", problem) from None
  return av
