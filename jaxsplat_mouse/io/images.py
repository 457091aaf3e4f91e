"""8-bit images in and out: straight alpha, and silhouettes of animals on a white background."""

from __future__ import annotations

import io
import os
import pathlib
import warnings

import numpy as np
from PIL import Image

from jaxsplat_mouse.errors import InputError

MAX_SIDE = 16384  # pixels; a header that claims more is refused before anything is decoded
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
    InputError: missing, broken, truncated or oversized image, or neither RGB nor RGBA.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(path, field, "no such image; expected a PNG or JPEG file")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      image = Image.open(path, formats=("PNG", "JPEG"))
    with image:
      if max(image.size) > MAX_SIDE:
        raise InputError(
          path, field, f"{image.width} x {image.height} pixels; expected at most {MAX_SIDE} a side"
        )
      if grey_too and image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
      if image.mode not in ("RGB", "RGBA"):
        raise InputError(path, field, f"image mode {image.mode}; expected RGBA, or RGB on white")
      image.load()
      return np.asarray(image)
  except InputError:
    raise
  except Image.DecompressionBombError as error:
    raise InputError(path, field, f"image too large to decode ({error})") from None
  except Exception as error:  # decoders raise many types for one thing: a broken file
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify" in reason:
      reason = "not an image"
    problem = f"broken image ({reason}); expected a whole PNG or JPEG"
    raise InputError(path, field, problem) from None


def encode_png(image: np.ndarray, level: int = 1) -> bytes:
  """PNG bytes of a uint8 image (H, W, 3 or 4).

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
  """Straight RGBA of a photograph whose background is white: uint8 (H, W, 3) to (H, W, 4).

  Background is what is as white as the image border and joined to it by such pixels, so a white
  spot inside the animal stays; a spot at its outline that is as white as the background is lost.
  Pixels at the outline are taken as mixtures of white and the colour just inside it: alpha is the
  share of that colour.
  """
  levels = rgb.min(-1)
  border = _border(levels)
  # as strict as the background is clean: pale fur must not count as background
  white = np.percentile(border[border >= NEAR_WHITE], 1) if (border >= NEAR_WHITE).any() else 255
  background = _joined_to_border(levels >= max(NEAR_WHITE, white - 1))
  colour, alpha = rgb.astype(np.float32), np.where(background, np.float32(0), np.float32(1))
  # images were resampled or compressed before: their outlines are about two pixels soft
  y, x = np.nonzero(~background & _grown(_grown(background)))
  toward, seen = 255.0 - _colour_inside(colour, background, y, x), 255.0 - colour[y, x]
  strength = (toward * toward).sum(-1)
  # an animal that is itself close to white says nothing about coverage
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


def _joined_to_border(mask: np.ndarray) -> np.ndarray:
  """The part of a boolean mask (H, W) that 4-connected steps inside it join to the border."""
  reached = np.zeros_like(mask)
  reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
  count = -1
  while count != (count := int(reached.sum())):
    reached = _fill_rows(mask, reached)
    reached = _fill_rows(mask.T, reached.T).T
  return reached


def _fill_rows(mask: np.ndarray, reached: np.ndarray) -> np.ndarray:
  """Grows `reached` to whole horizontal runs of `mask`."""
  starts = mask.copy()
  starts[:, 1:] &= ~mask[:, :-1]
  # pixels outside the mask share the number of the run before them, hence the final `& mask`
  run = np.cumsum(starts.ravel())
  hit = np.bincount(run, weights=reached.ravel(), minlength=int(run[-1]) + 1) > 0
  return hit[run].reshape(mask.shape) & mask


def _grown(mask: np.ndarray) -> np.ndarray:
  """The mask (H, W) and every pixel that touches it, diagonally too."""
  padded = np.pad(mask, 1)
  rows = padded[:-2] | padded[1:-1] | padded[2:]
  return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _colour_inside(
  colour: np.ndarray, background: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
  """Animal colour (N, 3) beside outline pixels: the mean over what is clear of the background.

  Where nothing within three pixels is, as along a thin tail, the colour furthest from white.
  """
  core = ~_grown(_grown(background))
  dy, dx = (offset.ravel() for offset in np.mgrid[-3:4, -3:4])
  rows = np.clip(y[:, None] + dy, 0, core.shape[0] - 1)
  columns = np.clip(x[:, None] + dx, 0, core.shape[1] - 1)
  near, weight = colour[rows, columns], core[rows, columns][..., None]
  mean = (near * weight).sum(1) / np.maximum(weight.sum(1), 1)
  darkest = np.take_along_axis(near, near.sum(-1).argmin(-1)[:, None, None], 1)[:, 0]
  return np.where(weight.any(1), mean, darkest)
