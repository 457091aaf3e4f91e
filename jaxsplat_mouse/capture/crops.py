"""One moment: raw pictures of all cameras become crops, and crops a scene folder."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.crop_windows import CropWindow, pinhole_box, place_window
from jaxsplat_mouse.capture.frame_reader import FrameReader, RawFrame
from jaxsplat_mouse.capture.lens import CropRegion, Pinhole
from jaxsplat_mouse.capture.mattes import foreground_color, silhouette_box
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic, images

T = TypeVar("T")
# Around a silhouette that is cut by itself: what is out of frame is unknown, and solids grow there.
_ROOM = 1.4
_SPREAD = 3  # pixels beside a silhouette that a cubic lookup may still colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
  """One camera's share of a scene.

  Attributes:
    view: number of the camera.
    frame: number of its picture in its stream.
    rgba: (h, w, 4) uint8, straight alpha.
    cut: where it was cut.
    intrinsics: (4,) fx fy cx cy in its own pixels.
  """

  view: int
  frame: int
  rgba: np.ndarray
  cut: CropRegion
  intrinsics: np.ndarray


class Cropper:
  """Cuts the pictures of one recording; cameras side by side in threads."""

  def __init__(self, capture: Capture, frame_reader: FrameReader, pinholes: dict[int, Pinhole]):
    """Takes the cameras that can be read, by number, as `pinholes`."""
    self.capture, self.frame_reader, self.pinholes = capture, frame_reader, pinholes
    self._pool = ThreadPoolExecutor(max(1, len(pinholes)))

  def __enter__(self) -> Cropper:
    """Itself; leaving ends the threads."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Ends the threads."""
    self._pool.shutdown()

  def map_cameras(
    self, frames: np.ndarray, work: Callable[[int, int], T]
  ) -> tuple[dict[int, T], dict[int, str]]:
    """Calls work(view, frame) for every camera; results, and why there is none, by camera.

    Args:
      frames: (V,) frame of each camera.
      work: may raise `InputError`.
    """

    def one(view: int) -> T | InputError:
      try:
        return work(view, int(frames[view]))
      except InputError as error:
        return error

    found = dict(zip(self.pinholes, self._pool.map(one, self.pinholes), strict=True))
    problems = {v: str(r) for v, r in found.items() if isinstance(r, InputError)}
    return {v: r for v, r in found.items() if not isinstance(r, InputError)}, problems

  def measure_box(self, view: int, frame: int) -> np.ndarray:
    """Silhouette's box (4,) in the pinhole, from the mask alone.

    Raises:
      InputError: no mask, or an empty one.
    """
    return self._box(view, frame, self.frame_reader.read_coverage(view, frame))

  def _box(self, view: int, frame: int, coverage: np.ndarray) -> np.ndarray:
    box = silhouette_box(coverage)
    place = f"{self.capture.rig.names[view]} frame {frame}"
    if box is None:
      raise InputError(self.capture.path, place, "empty silhouette")
    found = pinhole_box(self.capture.rig, view, self.pinholes[view], box)
    if not np.isfinite(found).all():
      problem = "the silhouette reaches where the lens model has no inverse"
      raise InputError(self.capture.path, place, problem)
    return found

  def crop(self, view: int, frame: int, window: CropWindow | None) -> Crop:
    """The crop of one camera; without a window, one that just holds the silhouette.

    Raises:
      InputError: a picture that cannot be read, or a silhouette that is empty or too large.
    """
    raw = self.frame_reader.read_frame(view, frame)
    box = self._box(view, frame, raw.coverage)
    longest = max(box[2] - box[0], box[3] - box[1])
    if window is None:
      window = CropWindow(side=int(longest * _ROOM) + 8, scale=1.0, limit=np.inf)
    if longest > window.limit or not window.holds(box):
      problem = (
        f"silhouette {longest:.0f} px long; expected at most {window.side / window.scale:.0f} "
        "as in the other frames: the mask holds more than the animal"
      )
      raise InputError(self.capture.path, f"{self.capture.rig.names[view]} frame {frame}", problem)
    cut = place_window(window, self.pinholes[view], box)
    return Crop(
      view=view,
      frame=frame,
      rgba=self._resample(view, raw, cut, box),
      cut=cut,
      intrinsics=cut.intrinsics(self.pinholes[view]),
    )

  def _resample(self, view: int, raw: RawFrame, cut: CropRegion, box: np.ndarray) -> np.ndarray:
    """RGBA of a crop; only around the silhouette's box (4,) is there anything to look up."""
    corner = np.array([cut.left, cut.top] * 2)
    near = (box - corner) * cut.scale + np.array([-_SPREAD, -_SPREAD, _SPREAD, _SPREAD])
    limits = (cut.width, cut.height) * 2
    x0, y0, x1, y1 = (int(np.clip(round(v), 0, m)) for v, m in zip(near, limits, strict=True))
    points = lens.lookup_points(self.capture.rig, view, self.pinholes[view], cut, (x0, y0, x1, y1))
    a, b, c, d = lens.raw_pixel_box(points, raw.coverage.shape[::-1])
    photo, coverage = raw.photo[b:d, a:c], raw.coverage[b:d, a:c]
    color = foreground_color(photo, coverage) if raw.mixed else photo * np.float32(1 / 255)
    alpha = coverage * np.float32(1 / 255)
    rgba = np.zeros((cut.height, cut.width, 4), np.uint8)
    shape = (y1 - y0, x1 - x0)
    rgba[y0:y1, x0:x1] = lens.resample_rgba(color, alpha, points - np.array([a, b]), shape)
    return rgba

  def read_photo(self, crop: Crop) -> np.ndarray:
    """The photograph of a crop, (h, w, 3) uint8, with its background.

    Raises:
      InputError: it cannot be read.
    """
    raw = self.frame_reader.read_frame(crop.view, crop.frame)
    points = lens.lookup_points(self.capture.rig, crop.view, self.pinholes[crop.view], crop.cut)
    image = raw.photo / np.float32(255)
    if not raw.mixed:  # straight colour, on white as the photograph was
      alpha = raw.coverage[..., None] / np.float32(255)
      image = image * alpha + 1 - alpha
    found = lens.resample(image, points, (crop.cut.height, crop.cut.width))
    return (np.clip(found, 0, 1) * 255 + 0.5).astype(np.uint8)

  def encode_pngs(self, crops: Iterable[Crop]) -> list[bytes]:
    """PNG bytes of each crop."""
    return list(self._pool.map(lambda crop: images.encode_png(crop.rgba), crops))


def write_scene_folder(
  folder: pathlib.Path,
  capture: Capture,
  crops: list[Crop],
  pngs: list[bytes],
  extra: dict[str, Any],
) -> None:
  """Writes a scene folder, which appears whole or not at all; one that is there is replaced.

  The cameras keep the capture's world and unit.

  Raises:
    OSError: the disk is full or not writable.
  """
  names = [f"images/cam_{crop.view:03d}.png" for crop in crops]
  cameras = [
    Cameras(
      world_to_camera=capture.rig.world_to_camera[crop.view],
      intrinsics=crop.intrinsics,
      width=crop.rgba.shape[1],
      height=crop.rgba.shape[0],
    )
    for crop in crops
  ]
  more = [
    {
      "camera": capture.rig.names[crop.view],
      "frame": crop.frame,
      "cut": dataclasses.asdict(crop.cut),
    }
    for crop in crops
  ]
  with atomic.new_folder(folder, overwrite=True) as temporary:
    (temporary / "images").mkdir()
    for name, png in zip(names, pngs, strict=True):
      (temporary / name).write_bytes(png)
    camera_file.write_scene_cameras(
      temporary, cameras, names, scene_id=folder.name, extra=extra, frame_extra=more
    )
