"""Photographs and silhouettes of all cameras by moment, whatever they are stored as."""

from __future__ import annotations

import dataclasses
import pathlib
from types import TracebackType

import numpy as np

from jaxsplat_mouse.capture import video
from jaxsplat_mouse.capture.mattes import SOLID, SPECK_SHARE, border_share, clean_mask, grow_mask
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images

_MAX_BORDER = 0.5  # share of a picture's border from which a mask is background, not animal


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFrame:
  """One camera's raw picture.

  Attributes:
    photo: (H, W, 3) uint8, straight colour.
    coverage: (H, W) uint8, the animal's.
    mixed: the background shows through at the outline, as the mask came apart from the photograph.
  """

  photo: np.ndarray
  coverage: np.ndarray
  mixed: bool


class FrameReader:
  """Readers of all cameras, opened when first asked; each may be used by one thread at a time."""

  def __init__(self, capture: Capture, specks: float = SPECK_SHARE, grow: int = 0):
    """Opens nothing yet; for `specks` see `matte.clean_mask`, for `grow` `matte.grow_mask`.

    Raises:
      InputError: pictures that carry their own alpha shall grow.
    """
    if grow > 0 and capture.masks is None:
      problem = f"{grow}: the pictures have no colour outside of their own silhouettes"
      raise InputError("--grow", "", f"{problem}; expected 0 or less without masks")
    self._capture, self._specks, self._grow = capture, specks, grow
    self._readers: dict[tuple[str, int], video.StreamReader] = {}
    self._sizes: dict[int, tuple[int, int]] = {}

  def __enter__(self) -> FrameReader:
    """Itself; leaving closes the files."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Closes the files."""
    for reader in self._readers.values():
      reader.close()
    self._readers.clear()

  def require_packages(self) -> None:
    """Nothing where everything is installed that this capture takes.

    Raises:
      InputError: OpenCV or PyAV is not.
    """
    try:
      import cv2  # noqa: F401
    except ImportError:
      problem = "preparing pictures takes OpenCV: pip install 'jaxsplat-mouse[video]'"
      raise InputError(self._capture.path, "", problem) from None
    streams = (*self._capture.pictures, *(self._capture.masks or ()))
    if any(stream.video is not None for stream in streams):
      video.require_pyav(self._capture.path)

  def image_size(self, view: int, number: int = 0) -> tuple[int, int]:
    """Width and height of a camera's photographs: the calibration's, or those of frame `number`.

    Raises:
      InputError: the frame cannot be read.
    """
    if view not in self._sizes:
      width, height = (int(side) for side in self._capture.rig.sizes[view])
      if 0 in (width, height):
        height, width = self._read("pictures", view, number).shape[:2]
      self._sizes[view] = width, height
    return self._sizes[view]

  def open_camera(self, view: int) -> None:
    """Opens a camera's files.

    Raises:
      InputError: one of them is missing or no video.
    """
    for kind in ("pictures", "masks") if self._capture.masks else ("pictures",):
      self._reader(kind, view)

  def read_coverage(self, view: int, number: int) -> np.ndarray:
    """The silhouette (H, W) uint8 in a camera's frame; the photograph is left alone where it can.

    Raises:
      InputError: it cannot be read, or is not of the calibration's size.
    """
    if self._capture.masks is None:
      return self.read_frame(view, number).coverage
    levels = self._read("masks", view, number)
    self._check_size("masks", view, number, levels)
    found = clean_mask(levels, self._specks)
    self._check_mask(view, number, levels, found)
    return self._grown("masks", view, number, found)

  def read_frame(self, view: int, number: int) -> RawFrame:
    """Photograph and silhouette in a camera's frame.

    Raises:
      InputError: as `coverage`.
    """
    photo = self._read("pictures", view, number)
    self._check_size("pictures", view, number, photo)
    if self._capture.masks is not None:
      return RawFrame(photo=photo[..., :3], coverage=self.read_coverage(view, number), mixed=True)
    if photo.shape[2] == 3:
      self._check_white(view, number, photo)
      photo = images.rgba_from_white(photo)
    coverage = self._grown("pictures", view, number, photo[..., 3])
    return RawFrame(photo=photo[..., :3], coverage=coverage, mixed=False)

  def _grown(self, kind: str, view: int, number: int, coverage: np.ndarray) -> np.ndarray:
    """The silhouette with its outline where the user wants it; refused where nothing is left."""
    grown = grow_mask(coverage, self._grow)
    if self._grow < 0 and coverage.any() and not grown.any():
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = f"--grow={self._grow} leaves nothing of the silhouette; expected fewer pixels"
      raise InputError(self._place(kind, view, number), field, problem)
    return grown

  def _read(self, kind: str, view: int, number: int) -> np.ndarray:
    return self._reader(kind, view).read(number)

  def _reader(self, kind: str, view: int) -> video.StreamReader:
    key = kind, view
    if key not in self._readers:
      camera = self._capture.rig.names[view] + (" mask" if kind == "masks" else "")
      self._readers[key] = video.open_stream(self._stream(kind, view), camera, grey=kind == "masks")
    return self._readers[key]

  def _stream(self, kind: str, view: int) -> Stream:
    streams = self._capture.masks if kind == "masks" else self._capture.pictures
    assert streams is not None
    return streams[view]

  def _check_size(self, kind: str, view: int, number: int, image: np.ndarray) -> None:
    """Refuses pictures that are not of the size that the intrinsics are for."""
    size = self.image_size(view, number)
    if image.shape[1::-1] != size:
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = f"{image.shape[1]} x {image.shape[0]} pixels; expected {size[0]} x {size[1]}"
      problem += ", the size that the intrinsics are for"
      raise InputError(self._place(kind, view, number), field, problem)

  def _check_mask(self, view: int, number: int, levels: np.ndarray, coverage: np.ndarray) -> None:
    """Refuses masks that show no animal, or everything but it."""
    field = f"{self._capture.rig.names[view]} mask frame {number}"
    if not coverage.any():
      problem = f"empty silhouette: the brightest level is {levels.max(initial=0)}"
      problem += f"; expected an animal at {SOLID} to 255"
    elif border_share(coverage) > _MAX_BORDER:
      problem = "the mask holds the picture's border; expected the animal white on black"
    else:
      return
    raise InputError(self._place("masks", view, number), field, problem)

  def _place(self, kind: str, view: int, number: int) -> pathlib.Path:
    """The file that a picture is in."""
    stream = self._stream(kind, view)
    return stream.video or (stream.images[number] if stream.images else self._capture.path)

  def _check_white(self, view: int, number: int, photo: np.ndarray) -> None:
    if images.white_border_share(photo) < 0.5:
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = "no mask, no alpha and no white background; give masks with --masks=DIR"
      raise InputError(self._capture.path, field, problem)
