"""Pictures of the check sheet: outlines, where silhouettes and solid differ, epipolar lines."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.background_plate import BackgroundPlate
from jaxsplat_mouse.capture.common_solid import reduced_size
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.report.contact_sheet import animal_box

CELL = 210  # pixels of a view on the sheet
_DRAWN = 2 * CELL  # pixels of a view while lines are drawn; reducing it makes them smooth
OUTLINE, GIVEN_OUTLINE = (0, 200, 90), (255, 196, 0)
_BOTH, _MASK_ONLY, _SOLID_ONLY = (206, 210, 218), (214, 40, 57), (36, 92, 214)
_PALE = 0.6  # share of white over a photograph that differences are drawn on
_UNKNOWN = 128
_LOUD = (255, 0, 255)  # no animal has this colour: what is left of the background shows
# One colour a camera, distinct for most eyes (Okabe and Ito 2008).
_CAMERAS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233),
            (230, 159, 0), (120, 94, 240), (90, 90, 90))  # fmt: skip


def _drawn_size(image: np.ndarray) -> tuple[int, int]:
  """Width and height at which an image (h, w, ...) is drawn."""
  height, width = image.shape[:2]
  factor = _DRAWN / max(height, width)
  return max(1, round(width * factor)), max(1, round(height * factor))


def shrink_picture(image: np.ndarray) -> np.ndarray:
  """Resizes an image (h, w, 3) to its drawn size."""
  size = _drawn_size(image)
  return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _solid_pixels(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an alpha (h, w) uint8 to a width and height; returns where it is solid."""
  return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BOX)) > 127


def draw_outlines(photo: np.ndarray, crop: Crop, given: np.ndarray | None = None) -> np.ndarray:
  """Draws the outline of a crop's silhouette on its photograph.

  Args:
    photo: (h, w, 3) uint8 of the crop, reduced.
    crop: the crop.
    given: (h', w') uint8, the mask as it was given, where the crop's silhouette is a matte.
  """
  picture = photo
  if given is not None:
    picture = _draw_outline(picture, given, GIVEN_OUTLINE)
  return _draw_outline(picture, crop.rgba[..., 3], OUTLINE)


def _draw_outline(photo: np.ndarray, alpha: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
  import cv2

  solid = _solid_pixels(alpha, photo.shape[1::-1]).astype(np.uint8)
  wide = cv2.dilate(solid, np.ones((5, 5), np.uint8))
  return np.where(((wide > 0) & (solid == 0))[..., None], np.array(color, np.uint8), photo)


def compare_silhouettes(
  crop: Crop, alpha: np.ndarray, photo: np.ndarray | None = None
) -> np.ndarray:
  """Draws where a crop's silhouette and the common solid's agree and differ.

  Args:
    crop: the crop.
    alpha: (SIDE, SIDE) the solid's silhouette in the reduced view.
    photo: (h, w, 3) uint8 to draw on, which is made paler; None for white.
  """
  height, width = crop.rgba.shape[:2]
  w, h = reduced_size(width, height)
  solid = (np.clip(alpha[:h, :w], 0, 1) * 255).astype(np.uint8)
  size = _drawn_size(crop.rgba)
  solid = np.asarray(Image.fromarray(solid).resize(size, Image.Resampling.BICUBIC)) > 127
  mask = _solid_pixels(crop.rgba[..., 3], size)
  if photo is None:
    picture = np.full((*mask.shape, 3), 255, np.uint8)
    picture[mask & solid] = _BOTH
  else:
    picture = (photo * (1 - _PALE) + 255 * _PALE).astype(np.uint8)
  picture[mask & ~solid], picture[solid & ~mask] = _MASK_ONLY, _SOLID_ONLY
  return picture


def animal_square(crop: Crop) -> tuple[slice, slice]:
  """Returns rows and columns of the drawn crop that hold its silhouette, with some room."""
  size = _drawn_size(crop.rgba)
  x0, y0, x1, y1 = animal_box([_solid_pixels(crop.rgba[..., 3], size)], margin=0.12)
  return slice(y0, y1), slice(x0, x1)


def draw_plate(cropper: Cropper, crop: Crop, plate: BackgroundPlate) -> np.ndarray:
  """Draws the empty scene in the region of a crop, grey where the camera never saw it."""
  color = np.clip(plate.color, 0, 255).astype(np.uint8)
  color = np.where(plate.known[..., None], color, np.uint8(_UNKNOWN))
  return shrink_picture(crop_picture(cropper, crop, color))


def draw_matte(crop: Crop) -> np.ndarray:
  """Draws the animal of a crop alone, on a loud colour, (h, w, 3) uint8."""
  alpha = crop.rgba[..., 3:] / np.float32(255)
  mixed = crop.rgba[..., :3] * alpha + np.array(_LOUD, np.float32) * (1 - alpha)
  return shrink_picture((mixed + 0.5).astype(np.uint8))


def crop_picture(cropper: Cropper, crop: Crop, picture: np.ndarray) -> np.ndarray:
  """Resamples a raw picture (H, W) or (H, W, 3) uint8 of a camera to the region of a crop."""
  rig, pinhole = cropper.capture.rig, cropper.pinholes[crop.view]
  points = lens.lookup_points(rig, crop.view, pinhole, crop.region)
  found = lens.resample(picture, points, (crop.region.height, crop.region.width))
  return np.asarray(np.clip(found, 0, 255) + 0.5).astype(np.uint8)


def silhouette_middle(crop: Crop) -> np.ndarray:
  """Centre (2,) of a crop's silhouette in the crop's pixels."""
  rows, columns = np.nonzero(crop.rgba[..., 3] > 127)
  return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) if len(rows) else np.zeros(2)


def epipolar_line(rig: Rig, one: Crop, other: Crop, point: np.ndarray) -> np.ndarray | None:
  """Computes the line of a crop on which a point of another camera's crop may lie.

  Args:
    rig: the cameras.
    one: the crop that the line is drawn on.
    other: the crop that `point` belongs to.
    point: (2,) in pixels of `other`.

  Returns:
    (2, 2) two points of the line in pixels of `one`, the nearer first along the other camera's ray;
    None where the ray does not pass in front of the camera.
  """
  fx, fy, cx, cy = other.intrinsics
  direction = np.array([(point[0] - cx) / fx, (point[1] - cy) / fy, 1.0])
  here, there = rig.world_to_camera[one.view], rig.world_to_camera[other.view]
  # The ray of the other camera, in the axes of this one, is start + depth * step.
  step = here[:3, :3] @ there[:3, :3].T @ direction
  start = here[:3, 3] - here[:3, :3] @ there[:3, :3].T @ there[:3, 3]
  depths = np.geomspace(1e-3, 1e3, 400) * max(float(np.linalg.norm(start)), 1e-9)
  points = start + depths[:, None] * step
  points = points[points[:, 2] > 1e-3 * np.linalg.norm(points, axis=1)]
  if len(points) < 2:
    return None
  fx, fy, cx, cy = one.intrinsics
  ends = points[[0, -1]]
  return np.stack([fx * ends[:, 0] / ends[:, 2] + cx, fy * ends[:, 1] / ends[:, 2] + cy], -1)


def draw_epipolar_lines(
  photo: np.ndarray, rig: Rig, crop: Crop, middles: dict[int, tuple[Crop, np.ndarray]]
) -> np.ndarray:
  """Draws the lines of the other cameras, and the own middle, on a paler photograph."""
  image = Image.fromarray((photo * 0.55 + 255 * 0.45).astype(np.uint8))
  draw = ImageDraw.Draw(image)
  factor = photo.shape[1] / crop.rgba.shape[1]
  for view, (other, middle) in middles.items():
    if view == crop.view:
      continue
    line = epipolar_line(rig, crop, other, middle)
    if line is not None:
      draw.line([tuple(p) for p in line * factor], _CAMERAS[view % len(_CAMERAS)], 3)
  x, y = middles[crop.view][1] * factor
  draw.ellipse((x - 8, y - 8, x + 8, y + 8), "white", (20, 20, 20), 3)
  draw.ellipse((x - 4, y - 4, x + 4, y + 4), _CAMERAS[crop.view % len(_CAMERAS)])
  return np.asarray(image)
