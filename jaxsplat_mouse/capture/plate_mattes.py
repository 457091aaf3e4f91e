"""Alpha and colour of an animal before a known background, in a band around a given outline.

A pixel shows I = a F + (1 - a) B (Porter and Duff 1984). The plate gives B, dimmed where a shadow
falls on it; the animal's own inside gives F; a follows, as exactly as F and B differ. Where they are
alike, a comes from the given outline instead, moved to where the evidence around it places it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BAND = 5  # pixels on either side of the given outline where alpha is solved
_CODEC = 3.0  # levels, standard deviation of a decoded pixel
_BLEED = 0.12  # of the contrast: colour that codecs, at half resolution, carry across an outline
_PRIOR = 0.30  # standard deviation of the moved outline's alpha near it
_LIGHT = 0.35, 1.6  # how much darker or brighter than the plate the ground may be
_OFFSETS = np.arange(-BAND, BAND + 0.01, 0.5, np.float32)
_TRUNCATE = 0.35  # squared alpha error from which a pixel says nothing more against an offset
_ALONG = 2.5  # pixels, over which neighbours along an outline share their offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matte:
  """The result for one picture or a part of it.

  Attributes:
    alpha: (H, W) float32 in [0, 1].
    color: (H, W, 3) float32 in [0, 1], the animal's own, without background.
    confidence: (H, W) float32 in [0, 1], what the picture itself contributed to alpha.
    offset: pixels by which the given outline lies outside the matte's; mean over its length.
    offset_error: standard error of `offset`.
  """

  alpha: np.ndarray
  color: np.ndarray
  confidence: np.ndarray
  offset: float
  offset_error: float


def solve_matte(
  photo: np.ndarray,
  coverage: np.ndarray,
  plate: np.ndarray,
  spread: np.ndarray,
  known: np.ndarray,
  *,
  expected: float = 0.0,
) -> Matte:
  """Solves alpha and colour.

  Args:
    photo: (H, W, 3) uint8.
    coverage: (H, W) uint8, the given silhouette.
    plate: (H, W, 3) float32 levels, the empty scene at the photograph's exposure.
    spread: (H, W) float32 levels, how sure the plate is.
    known: (H, W) bool, where there is a plate.
    expected: pixels by which the camera's outlines lie outside the animal's, as known from other
      moments; a matte without evidence of its own is moved by it.
  """
  image = photo.astype(np.float32)
  signed = signed_distance(coverage)
  ground = _light_ground(image, plate, known & (signed > BAND))
  alpha = moved = _ramp(signed, -expected)
  for _ in range(2):
    evidence = _evidence(image, ground, spread, known, signed, moved)
    offsets, sure = _offset_field(evidence, signed, -expected)
    moved = _ramp(signed, offsets)
    alpha, confidence = _combine(evidence, moved, signed)
    ground = _light_ground(image, plate, known & (signed > -BAND) & (alpha < 0.04), plain=ground)
  color = _clean_color(image, ground, alpha, evidence)
  offset, error = _mean_offset(-offsets, sure, signed)
  return Matte(
    alpha=alpha, color=color / 255, confidence=confidence, offset=offset, offset_error=error
  )


def signed_distance(coverage: np.ndarray) -> np.ndarray:
  """Distance (H, W) float32 from the outline of a silhouette (H, W) uint8; negative inside."""
  import cv2

  inside = (coverage > 127).astype(np.uint8)
  far, deep = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (1 - inside, inside))
  signed = np.where(inside > 0, np.float32(0.5) - deep, far - np.float32(0.5))
  # On the outline itself the levels place it more exactly than whole pixels do.
  soft = np.float32(0.5) - coverage * np.float32(1 / 255)
  edge = (np.abs(signed) < 1) & (coverage > 0) & (coverage < 255)
  return np.where(edge, soft, signed).astype(np.float32)


def _ramp(signed: np.ndarray, offset: np.ndarray | float) -> np.ndarray:
  """Coverage (H, W) of an outline that lies `offset` pixels outside the given one."""
  return np.clip(np.float32(0.5) + offset - signed, 0, 1).astype(np.float32)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
  import cv2

  size = 2 * int(np.ceil(2.5 * sigma)) + 1
  return np.asarray(cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REPLICATE))


def _light_ground(
  image: np.ndarray, plate: np.ndarray, bare: np.ndarray, plain: np.ndarray | None = None
) -> np.ndarray:
  """Returns the plate (H, W, 3) in the light of the picture: shadows and exposure included.

  The light is the ratio of picture and plate on bare ground, continued under the animal.

  Args:
    image: (H, W, 3) levels.
    plate: (H, W, 3) levels.
    bare: (H, W) bool, the pixels that show the ground alone.
    plain: (H, W, 3) an earlier estimate, kept where no bare ground is near.
  """
  weight = bare.astype(np.float32)
  found = np.stack([(image * plate).sum(-1) * weight, (plate * plate).sum(-1) * weight], -1)
  light, trust = None, None
  for sigma in (12.0, 3.0):
    near = _blur(found, sigma)
    amount = _blur(weight, sigma)
    here = near[..., 0] / np.maximum(near[..., 1], 1e-3)
    if light is None:
      light = np.where(amount > 1e-3, here, 1.0)
      if plain is not None:
        light = np.where(amount > 1e-3, light, plain.sum(-1) / np.maximum(plate.sum(-1), 1))
    else:
      trust = np.clip(amount / 0.15, 0, 1)
      light = light + trust * (here - light)
  return plate * np.clip(light, *_LIGHT)[..., None].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evidence:
  """What each pixel says by itself.

  Attributes:
    alpha: (H, W) by projection onto the line from ground to animal; not clipped.
    variance: (H, W) of `alpha`; huge where nothing is known.
    animal: (H, W, 3) levels, the animal's colour nearby.
    texture: (H, W) levels, standard deviation of that colour.
    contrast: (H, W) levels between animal and ground.
  """

  alpha: np.ndarray
  variance: np.ndarray
  animal: np.ndarray
  texture: np.ndarray
  contrast: np.ndarray


def _evidence(
  image: np.ndarray,
  ground: np.ndarray,
  spread: np.ndarray,
  known: np.ndarray,
  signed: np.ndarray,
  moved: np.ndarray,
) -> _Evidence:
  """Solves each pixel by itself; see `solve_matte` and `_Evidence`."""
  off = np.sqrt(np.square(image - ground).mean(-1))
  core = _animal_core(off, spread, signed, moved)
  animal, texture = _animal_color(image, core)
  line = animal - ground
  squared = np.maximum((line * line).sum(-1), 1e-3)
  alpha = ((image - ground) * line).sum(-1) / squared
  share = np.clip(alpha, 0, 1)
  noise = np.square(share * texture) + np.square((1 - share) * spread) + _CODEC**2
  contrast = np.sqrt(squared / 3)
  variance = noise / np.maximum(contrast, 1e-3) ** 2
  # What lies off the line between the two colours was not explained by them.
  rest = image - ground - share[..., None] * line
  residual = (rest * rest).mean(-1)
  variance = variance * (1 + residual / np.maximum(3 * noise, 1e-3))
  variance = np.where(known, variance + 0.02**2, np.float32(1e6))
  return _Evidence(
    alpha=alpha.astype(np.float32),
    variance=variance.astype(np.float32),
    animal=animal,
    texture=texture,
    contrast=contrast.astype(np.float32),
  )


def _animal_core(
  off: np.ndarray, spread: np.ndarray, signed: np.ndarray, moved: np.ndarray
) -> np.ndarray:
  """Weight (H, W) of pixels that show the animal alone.

  Deep inside, all do. Thin parts have no inside: there, those do that differ most from the ground.

  Args:
    off: (H, W) levels between picture and ground.
    spread: (H, W) levels, how sure the plate is.
    signed: (H, W) distance from the given outline.
    moved: (H, W) coverage of the moved outline.
  """
  import cv2

  deep = signed < -BAND
  window = np.ones((2 * BAND + 1,) * 2, np.uint8)
  near_deep = cv2.dilate(deep.astype(np.uint8), window) > 0
  inside = (moved > 0.5) & ~near_deep
  peak = cv2.dilate(np.where(inside, off, 0).astype(np.float32), np.ones((7, 7), np.uint8))
  thin = inside & (off > 0.85 * peak) & (off > 3 * spread)
  return (deep | thin).astype(np.float32)


def _animal_color(image: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Colour (H, W, 3) and its standard deviation (H, W) of the nearest core pixels."""
  squares = np.square(image).sum(-1, keepdims=True)
  stacked = np.concatenate([image * core[..., None], core[..., None]], -1)
  color = variance = None
  for sigma in (9.0, 3.0):
    near = _blur(stacked, sigma)
    weight = np.maximum(near[..., 3:], 1e-6)
    mean = near[..., :3] / weight
    square = _blur((squares[..., 0] * core), sigma)[..., None] / weight
    spread = np.maximum(square - np.square(mean).sum(-1, keepdims=True), 0) / 3
    if color is None or variance is None:
      color, variance = mean, spread
    else:
      trust = np.clip(near[..., 3:] / 0.03, 0, 1)
      color, variance = color + trust * (mean - color), variance + trust * (spread - variance)
  assert color is not None and variance is not None
  return color, np.sqrt(variance[..., 0])


def _offset_field(
  evidence: _Evidence, signed: np.ndarray, expected: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns where the outline lies, relative to the given one, and how sure that is.

  For each candidate offset the outline's coverage is compared with the evidence in a small
  neighbourhood; the best one is refined by a parabola.

  Args:
    evidence: of each pixel.
    signed: (H, W) distance from the given outline.
    expected: the offset without evidence.

  Returns:
    (H, W) offsets in pixels, positive where the animal reaches beyond the given outline, and their
    weights (H, W), the inverse of a variance.
  """
  band = np.abs(signed) <= BAND + 1
  weight = np.where(band, 1 / (evidence.variance + 0.1**2), 0).astype(np.float32)
  share = np.clip(evidence.alpha, -0.2, 1.2)
  costs = []
  for offset in _OFFSETS:
    error = np.minimum(np.square(share - _ramp(signed, offset)), np.float32(_TRUNCATE))
    costs.append(_blur(weight * error, _ALONG) + np.float32(0.05 * (offset - expected) ** 2))
  cost = np.stack(costs)
  best = cost.argmin(0)
  inner = np.clip(best, 1, len(_OFFSETS) - 2)
  take = lambda at: np.take_along_axis(cost, at[None], 0)[0]
  before, here, after = take(inner - 1), take(inner), take(inner + 1)
  bend = np.maximum(before - 2 * here + after, 1e-6)
  step = np.clip(0.5 * (before - after) / bend, -1, 1)
  spacing = _OFFSETS[1] - _OFFSETS[0]
  found = _OFFSETS[inner] + spacing * step
  sure = np.maximum(bend / spacing**2 - 0.1, 0)
  return found.astype(np.float32), sure.astype(np.float32)


def _combine(
  evidence: _Evidence, moved: np.ndarray, signed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns alpha and the share (H, W) in it of each pixel's own evidence."""
  near = np.clip(1 - np.abs(moved - 0.5) * 2, 0, 1)
  away = np.float32(_PRIOR) * (0.35 + 0.65 * near)
  confidence = away**2 / (away**2 + evidence.variance)
  alpha = moved + confidence * (np.clip(evidence.alpha, 0, 1) - moved)
  alpha = np.where(signed < -BAND, 1, np.where(signed > BAND, 0, alpha))
  # The last levels are noise: an empty pixel is empty and a full one full.
  alpha = np.clip((alpha - 0.03) / 0.94, 0, 1)
  return alpha.astype(np.float32), confidence.astype(np.float32)


def _clean_color(
  image: np.ndarray, ground: np.ndarray, alpha: np.ndarray, evidence: _Evidence
) -> np.ndarray:
  """Returns the animal's colour (H, W, 3) levels: most likely, given picture, ground and alpha."""
  share = alpha[..., None]
  texture = np.square(np.maximum(evidence.texture, 4.0))[..., None]
  edge = np.clip(1 - np.abs(signed_distance((alpha * 255).astype(np.uint8))) / 3, 0, 1)
  noise = (_CODEC**2 + np.square(_BLEED * evidence.contrast * edge * 3))[..., None]
  rest = image - share * evidence.animal - (1 - share) * ground
  color = evidence.animal + share * texture * rest / (share**2 * texture + noise)
  return np.clip(np.where(share >= 1 - 1e-3, _full(image, color, edge), color), 0, 255)


def _full(image: np.ndarray, color: np.ndarray, edge: np.ndarray) -> np.ndarray:
  """Returns the picture itself where no outline is near, else the cleaned colour."""
  return np.where(edge[..., None] > 0, color, image)


def _mean_offset(offsets: np.ndarray, sure: np.ndarray, signed: np.ndarray) -> tuple[float, float]:
  """Mean of the offsets (H, W) along the outline, and its standard error, pixels."""
  along = (np.abs(signed) <= 1) & (sure > 0)
  if along.sum() < 8:
    return 0.0, float("inf")
  weight, value = np.minimum(sure[along], 50.0), offsets[along]
  mean = float((weight * value).sum() / weight.sum())
  variance = float((weight * np.square(value - mean)).sum() / weight.sum())
  # Neighbours share their evidence: about one independent value for each correlation length.
  count = max(along.sum() / (4 * _ALONG), 1.0)
  return mean, float(np.sqrt(variance / count + 0.25 / weight.sum()))
