"""Reads and writes 8-bit images, and takes the silhouette of an animal from a white background."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from jaxsplat_mouse.errors import InputError, reason

MAX_SIDE = 16384  # pixels; an image with a larger header is refused before it is decoded
NEAR_WHITE = 240  # 8-bit level that every channel of a white background reaches
_RUN_LENGTH = 3  # zlib's Z_RLE


def read_image(
  path: str | os.PathLike[str], field: str = "", *, grey_too: bool = False
) -> np.ndarray:
  """Reads a PNG or JPEG as uint8 (H, W, 4) RGBA or (H, W, 3) RGB.

  Args:
    path: the image.
    field: the field that names the image, for error messages.
    grey_too: read 8-bit grey and two-level images as well, as (H, W).

  Raises:
    InputError: the image is missing, broken, truncated, oversized, or neither RGB nor RGBA.
  """
  with _open_image(pathlib.Path(path), field) as image:
    if grey_too and image.mode in ("1", "L"):
      return np.asarray(image.convert("L"))
    if image.mode not in ("RGB", "RGBA"):
      raise InputError(path, field, f"image mode {image.mode}; expected RGBA, or RGB on white")
    image.load()
    return np.asarray(image)


def read_label_image(path: str | os.PathLike[str], field: str = "") -> np.ndarray:
  """Reads label ids (H, W), int32, from an indexed, grey or 16-bit PNG.

  Args:
    path: the image.
    field: the field that names the image, for error messages.

  Raises:
    InputError: the image is missing, broken, oversized, no PNG, or has colours instead of ids.
  """
  with _open_image(pathlib.Path(path), field) as image:
    if image.format != "PNG" or image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
      problem = f"{image.format} of mode {image.mode}; expected label ids as an indexed or grey PNG"
      raise InputError(path, field, problem)
    image.load()
    return np.asarray(image).astype(np.int32)


def read_image_size(path: pathlib.Path, field: str) -> tuple[int, int]:
  """Reads width and height of a PNG or JPEG from its header, without decoding it.

  Raises:
    InputError: there is no such file, it is not PNG or JPEG, or too large.
  """
  with _open_image(path, field) as image:
    return image.size


def check_image_size(path: pathlib.Path, field: str, size: tuple[int, int]) -> tuple[int, int]:
  """Returns width and height of an image.

  Args:
    path: the file that they come from, for messages.
    field: the field, for messages.
    size: width and height, pixels.

  Raises:
    InputError: a side is not 1 to `MAX_SIDE`.
  """
  width, height = size
  if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
    limit = f"expected 1 to {MAX_SIDE} per side"
    raise InputError(path, field, f"{width} x {height} pixels; {limit}")
  return width, height


@contextlib.contextmanager
def _open_image(path: pathlib.Path, field: str) -> Iterator[Image.Image]:
  """Yields an image before it is decoded; whatever fails in the block becomes an InputError."""
  if not path.is_file():
    raise InputError(path, field, "no such image; expected a PNG or JPEG file")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      image = Image.open(path, formats=("PNG", "JPEG"))
    with image:
      check_image_size(path, field, image.size)
      yield image
  except InputError:
    raise
  except Image.DecompressionBombError as error:
    raise InputError(path, field, f"image too large to decode ({error})") from None
  except Exception as error:  # decoders raise many types for a broken file
    cause = "not an image" if "cannot identify" in str(error) else reason(error)
    problem = f"broken image ({cause}); expected a whole PNG or JPEG"
    raise InputError(path, field, problem) from None


def encode_png(image: np.ndarray, level: int = 1) -> bytes:
  """Encodes a uint8 image (H, W), (H, W, 3) or (H, W, 4) as PNG.

  Args:
    image: the pixels.
    level: zlib level 0 to 9. Level 1 matches runs only, which on animals before an empty
      background is faster than zlib's own level 1 and as small as its level 4. Measured on 512²
      RGBA (ms and KiB an image, one core): level 1: 10 and 164; 4: 19 and 159; 6: 32 and 156.
  """
  buffer = io.BytesIO()
  strategy = _RUN_LENGTH if level == 1 else -1
  Image.fromarray(np.ascontiguousarray(image)).save(
    buffer, "PNG", compress_level=level, compress_type=strategy
  )
  return buffer.getvalue()


def rgba_from_white(rgb: np.ndarray) -> np.ndarray:
  """Computes straight RGBA, uint8 (H, W, 4), of a photograph (H, W, 3) with a white background.

  Background pixels are as white as the image border and connected to it by such pixels, so a white
  spot inside the animal stays; a spot at its outline that is as white as the background is lost.
  Pixels at the outline are mixtures of white and the colour just inside it: alpha is the share of
  that colour.
  """
  levels = rgb.min(-1)
  border = _border(levels)
  # The cleaner the background, the stricter the threshold: pale fur must not count as background.
  white = np.percentile(border[border >= NEAR_WHITE], 1) if (border >= NEAR_WHITE).any() else 255
  background = _connected_to_border(levels >= max(NEAR_WHITE, white - 1))
  colour, alpha = rgb.astype(np.float32), np.where(background, np.float32(0), np.float32(1))
  # Images were resampled or compressed before, so their outlines are about two pixels soft.
  y, x = np.nonzero(~background & _dilate(_dilate(background)))
  toward, seen = 255.0 - _animal_colour(colour, background, y, x), 255.0 - colour[y, x]
  strength = (toward * toward).sum(-1)
  # The colour of an animal that is itself close to white does not determine coverage.
  share = np.where(strength > 1200.0, (toward * seen).sum(-1) / np.maximum(strength, 1.0), 1.0)
  share = np.clip(share, 0.02, 1.0)
  alpha[y, x], colour[y, x] = share, 255.0 - seen / share[:, None]
  rgba = np.concatenate([colour, alpha[..., None] * 255.0], -1)
  rgba = np.floor(np.clip(rgba, 0.0, 255.0) + 0.5).astype(np.uint8)
  rgba[rgba[..., 3] == 0] = 0
  return rgba


def white_border_share(rgb: np.ndarray) -> float:
  """Share of the border pixels of a uint8 image (H, W, 3) that are near white."""
  return float((_border(rgb.min(-1)) >= NEAR_WHITE).mean())


def _border(values: np.ndarray) -> np.ndarray:
  return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _connected_to_border(mask: np.ndarray) -> np.ndarray:
  """Returns the part of a boolean mask (H, W) that is 4-connected to the image border."""
  reached = np.zeros_like(mask)
  reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
  count = -1
  while count != (count := int(reached.sum())):
    reached = _fill_rows(mask, reached)
    reached = _fill_rows(mask.T, reached.T).T
  return reached


def _fill_rows(mask: np.ndarray, reached: np.ndarray) -> np.ndarray:
  """Extends `reached` to whole horizontal runs of `mask`."""
  starts = mask.copy()
  starts[:, 1:] &= ~mask[:, :-1]
  # Pixels outside the mask have the number of the run before them, hence the final `& mask`.
  run = np.cumsum(starts.ravel())
  hit = np.bincount(run, weights=reached.ravel(), minlength=int(run[-1]) + 1) > 0
  return hit[run].reshape(mask.shape) & mask


def _dilate(mask: np.ndarray) -> np.ndarray:
  """Returns the mask (H, W) with every pixel that touches it, diagonally too."""
  padded = np.pad(mask, 1)
  rows = padded[:-2] | padded[1:-1] | padded[2:]
  return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _animal_colour(
  colour: np.ndarray, background: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
  """Returns animal colours (N, 3) beside outline pixels: means over pixels clear of background.

  If none is within three pixels, as along a thin tail, it is the colour furthest from white.

  Args:
    colour: (H, W, 3) float32 levels.
    background: (H, W) bool.
    y: (N,) rows of the outline pixels.
    x: (N,) their columns.
  """
  core = ~_dilate(_dilate(background))
  dy, dx = (offset.ravel() for offset in np.mgrid[-3:4, -3:4])
  rows = np.clip(y[:, None] + dy, 0, core.shape[0] - 1)
  columns = np.clip(x[:, None] + dx, 0, core.shape[1] - 1)
  near, weight = colour[rows, columns], core[rows, columns][..., None]
  mean = (near * weight).sum(1) / np.maximum(weight.sum(1), 1)
  darkest = np.take_along_axis(near, near.sum(-1).argmin(-1)[:, None, None], 1)[:, 0]
  return np.where(weight.any(1), mean, darkest)
