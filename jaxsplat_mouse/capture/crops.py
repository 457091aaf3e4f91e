"""One moment: raw pictures of all cameras become crops, and crops become a scene folder."""

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
from jaxsplat_mouse.capture.triangulation import labels_follow
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic, images

T = TypeVar("T")
# Size of a tight crop in silhouettes: a hull may extend into what is out of frame, so leave room.
_ROOM = 1.4
_HIDDEN = 0.05  # share of a pixel that other animals may cover before it counts as hidden
_SPREAD = 3  # pixels beside a silhouette that a cubic lookup may still colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
  """One camera's share of a scene.

  Attributes:
    view: number of the camera.
    frame: number of the picture in the camera's stream.
    rgba: (h, w, 4) uint8, straight alpha.
    region: the part of the pinhole's image that the crop shows.
    intrinsics: (4,) fx fy cx cy in the crop's pixels.
    hidden: (h, w) bool, pixels of other animals, behind which this one may be; None for none.
  """

  view: int
  frame: int
  rgba: np.ndarray
  region: CropRegion
  intrinsics: np.ndarray
  hidden: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CroppedSilhouette:
  """One camera's silhouette alone, without lens and skew.

  Attributes:
    alpha: (h, w) uint8 coverage.
    intrinsics: (4,) fx fy cx cy in the crop's pixels.
    seen: (4,) x0 y0 x1 y1 in the crop's pixels: what the photograph covers.
    scale: crop pixels per pixel at native resolution.
  """

  alpha: np.ndarray
  intrinsics: np.ndarray
  seen: np.ndarray
  scale: float


class Cropper:
  """Crops the pictures of one recording, each camera in a thread of its own.

  Use it as a context manager: it ends its threads at the end of the block.
  """

  def __init__(self, capture: Capture, frame_reader: FrameReader, pinholes: dict[int, Pinhole]):
    """Takes the readable cameras.

    Args:
      capture: the recording.
      frame_reader: reads its pictures.
      pinholes: the ideal cameras that replace the readable ones, by number of the camera.
    """
    self.capture, self.frame_reader, self.pinholes = capture, frame_reader, pinholes
    self._pool = ThreadPoolExecutor(max(1, len(pinholes)))
    self.color_factors: np.ndarray | None = None  # (V, 3), on the colours of crops once set

  def set_poses(self, world_to_camera: np.ndarray) -> None:
    """Replaces the poses (V, 4, 4) of the recording's rig; lenses and pinholes stay."""
    rig = dataclasses.replace(self.capture.rig, world_to_camera=world_to_camera)
    self.capture = dataclasses.replace(self.capture, rig=labels_follow(rig))

  def __enter__(self) -> Cropper:
    """Returns itself."""
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
    """Calls `work(view, frame)` for every readable camera.

    Args:
      frames: (V,) frame of each camera.
      work: may raise `InputError`.

    Returns:
      The results by camera, and the messages of the cameras that raised an error.
    """

    def attempt(view: int) -> T | InputError:
      try:
        return work(view, int(frames[view]))
      except InputError as error:
        return error

    found = dict(zip(self.pinholes, self._pool.map(attempt, self.pinholes), strict=True))
    problems = {v: str(r) for v, r in found.items() if isinstance(r, InputError)}
    return {v: r for v, r in found.items() if not isinstance(r, InputError)}, problems

  def measure_box(self, view: int, frame: int, animal: int | None = None) -> np.ndarray:
    """Measures a silhouette's box x0 y0 x1 y1 (4,) in pinhole pixels; reads the mask alone.

    Args:
      view: number of the camera.
      frame: number of the picture in its stream.
      animal: number of one of several animals; None for all of them together.

    Raises:
      InputError: there is no mask, or it is empty.
    """
    return self._pinhole_box(view, frame, self.frame_reader.read_coverage(view, frame, animal))

  def _pinhole_box(self, view: int, frame: int, coverage: np.ndarray) -> np.ndarray:
    box = silhouette_box(coverage)
    field = f"{self.capture.rig.names[view]} frame {frame}"
    if box is None:
      raise InputError(self.capture.path, field, "empty silhouette")
    found = pinhole_box(self.capture.rig, view, self.pinholes[view], box)
    if not np.isfinite(found).all():
      problem = "the silhouette reaches where the lens model has no inverse"
      raise InputError(self.capture.path, field, problem)
    return found

  def crop_silhouette(self, view: int, frame: int, side: int) -> CroppedSilhouette:
    """Crops the silhouette of one camera, with room around it; reads the mask alone where it can.

    Args:
      view: number of the camera.
      frame: number of the picture in its stream.
      side: largest side of the crop, pixels.

    Raises:
      InputError: there is no mask, or it is empty.
    """
    coverage = self.frame_reader.read_silhouette(view, frame)
    box = self._pinhole_box(view, frame, coverage)
    wanted = max(box[2] - box[0], box[3] - box[1]) * _ROOM + 8
    scale = min(1.0, side / wanted)
    window = CropWindow(side=int(scale * wanted), scale=scale, limit=np.inf)
    pinhole = self.pinholes[view]
    region = place_window(window, pinhole, box)
    points = lens.lookup_points(self.capture.rig, view, pinhole, region)
    alpha = lens.resample(coverage.astype(np.float32), points, (region.height, region.width))
    corner = np.array([region.left, region.top] * 2)
    return CroppedSilhouette(
      alpha=(np.clip(alpha, 0, 255) + 0.5).astype(np.uint8),
      intrinsics=region.intrinsics(pinhole),
      seen=region.scale * (np.array(pinhole.seen) - corner),
      scale=region.scale,
    )

  def crop(
    self, view: int, frame: int, window: CropWindow | None, animal: int | None = None
  ) -> Crop:
    """Crops the picture of one camera.

    Args:
      view: number of the camera.
      frame: number of the picture in its stream.
      window: the size of the crop; None for one that just holds the silhouette.
      animal: number of one of several animals; None for all of them together.

    Raises:
      InputError: the picture cannot be read, or the silhouette is empty or too large.
    """
    raw = self.frame_reader.read_frame(view, frame, animal)
    box = self._pinhole_box(view, frame, raw.coverage)
    longest = max(box[2] - box[0], box[3] - box[1])
    if window is None:
      window = CropWindow(side=int(longest * _ROOM) + 8, scale=1.0, limit=np.inf)
    if longest > window.limit or not window.holds(box):
      problem = (
        f"silhouette {longest:.0f} px long; expected at most {window.side / window.scale:.0f} "
        "as in the other frames: the mask holds more than the animal"
      )
      raise InputError(self.capture.path, f"{self.capture.rig.names[view]} frame {frame}", problem)
    region = place_window(window, self.pinholes[view], box)
    return Crop(
      view=view,
      frame=frame,
      rgba=self._resample(view, raw, region, box),
      region=region,
      intrinsics=region.intrinsics(self.pinholes[view]),
      hidden=self._resample_hidden(view, raw, region),
    )

  def _resample_hidden(self, view: int, raw: RawFrame, region: CropRegion) -> np.ndarray | None:
    """Returns the hidden pixels (h, w) bool of a crop, mixed ones included; None for none."""
    if raw.hidden is None:
      return None
    points = lens.lookup_points(self.capture.rig, view, self.pinholes[view], region)
    share = lens.resample(raw.hidden.astype(np.float32), points, (region.height, region.width))
    hidden = share > _HIDDEN
    return hidden if hidden.any() else None

  def _resample(self, view: int, raw: RawFrame, region: CropRegion, box: np.ndarray) -> np.ndarray:
    """Returns the RGBA of a crop; looks up only the pixels around the silhouette's box (4,)."""
    corner = np.array([region.left, region.top] * 2)
    near = (box - corner) * region.scale + np.array([-_SPREAD, -_SPREAD, _SPREAD, _SPREAD])
    limits = (region.width, region.height) * 2
    x0, y0, x1, y1 = (int(np.clip(round(v), 0, m)) for v, m in zip(near, limits, strict=True))
    pinhole = self.pinholes[view]
    points = lens.lookup_points(self.capture.rig, view, pinhole, region, (x0, y0, x1, y1))
    a, b, c, d = lens.raw_pixel_box(points, raw.coverage.shape[::-1])
    photo, coverage = raw.photo[b:d, a:c], raw.coverage[b:d, a:c]
    if raw.color is not None:
      color = raw.color[b:d, a:c]
    elif raw.has_background:
      color = foreground_color(photo, coverage)
    else:
      color = photo * np.float32(1 / 255)
    if self.color_factors is not None:
      color = np.minimum(color * self.color_factors[view].astype(np.float32), 1)
    alpha = coverage * np.float32(1 / 255)
    rgba = np.zeros((region.height, region.width, 4), np.uint8)
    shape = (y1 - y0, x1 - x0)
    rgba[y0:y1, x0:x1] = lens.resample_rgba(color, alpha, points - np.array([a, b]), shape)
    return rgba

  def read_photo(self, crop: Crop) -> np.ndarray:
    """Reads the photograph of a crop once more, (h, w, 3) uint8, with its background.

    Raises:
      InputError: it cannot be read.
    """
    raw = self.frame_reader.read_frame(crop.view, crop.frame)
    pinhole = self.pinholes[crop.view]
    points = lens.lookup_points(self.capture.rig, crop.view, pinhole, crop.region)
    image = raw.photo / np.float32(255)
    if not raw.has_background:
      alpha = raw.coverage[..., None] / np.float32(255)
      image = image * alpha + 1 - alpha
    found = lens.resample(image, points, (crop.region.height, crop.region.width))
    return (np.clip(found, 0, 1) * 255 + 0.5).astype(np.uint8)

  def encode_pngs(self, crops: Iterable[Crop]) -> list[bytes]:
    """Encodes crops as PNG, side by side."""
    return list(self._pool.map(lambda crop: images.encode_png(crop.rgba), crops))


def write_scene_folder(
  folder: pathlib.Path,
  capture: Capture,
  crops: list[Crop],
  pngs: list[bytes],
  extra: dict[str, Any],
) -> None:
  """Writes a scene folder, which appears whole or not at all; an existing one is replaced.

  The cameras keep the capture's world and unit.

  Args:
    folder: the scene folder.
    capture: the recording.
    crops: one for each camera of the scene.
    pngs: the encoded pictures of `crops`.
    extra: further top-level fields of the camera file.

  Raises:
    OSError: the disk is full or not writable.
  """
  names = [f"images/cam_{crop.view:03d}.png" for crop in crops]
  observed = {
    f"observed/cam_{crop.view:03d}.png": np.where(crop.hidden, np.uint8(0), np.uint8(255))
    for crop in crops
    if crop.hidden is not None
  }
  cameras = [_crop_camera(capture, crop) for crop in crops]
  origins = [
    {
      "camera": capture.rig.names[crop.view],
      "frame": crop.frame,
      "cut": dataclasses.asdict(crop.region),
    }
    for crop in crops
  ]
  for name, origin in zip(names, origins, strict=True):
    marked = name.replace("images", "observed")
    if marked in observed:
      origin[camera_file.OBSERVED_KEY] = marked
  with atomic.new_folder(folder, overwrite=True) as temporary:
    for marked, levels in observed.items():
      (temporary / "observed").mkdir(exist_ok=True)
      (temporary / marked).write_bytes(images.encode_png(levels))
    (temporary / "images").mkdir()
    for name, png in zip(names, pngs, strict=True):
      (temporary / name).write_bytes(png)
    camera_file.write_scene_cameras(
      temporary, cameras, names, scene_id=folder.name, extra=extra, frame_extra=origins
    )


def _crop_camera(capture: Capture, crop: Crop) -> Cameras:
  return Cameras(
    world_to_camera=capture.rig.world_to_camera[crop.view],
    intrinsics=crop.intrinsics,
    width=crop.rgba.shape[1],
    height=crop.rgba.shape[0],
  )
