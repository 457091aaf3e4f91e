"""Alpha and colour of an animal before a known background, in a band around a given outline.

A pixel shows I = a F + (1 - a) B (Porter and Duff 1984). The plate gives B, dimmed where a shadow
falls on it; the animal's own inside gives F; a follows, as exactly as F and B differ. Where they
are alike, a comes from the given outline instead, moved to where the evidence around it places it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BAND = 5  # pixels on either side of the given outline where alpha is solved
_CODEC = 3.0  # levels, standard deviation of a decoded pixel
_BLEED = 0.12  # of the contrast: colour that codecs, at half resolution, carry across an outline
_TRUST = 4.0, 16.0  # logarithmic likelihood of the moved outline's alpha, near it and elsewhere
_LIGHT = 0.35, 1.6  # how much darker or brighter than the plate the ground may be
_OFFSETS = np.linspace(-BAND, BAND, 4 * BAND + 1, dtype=np.float32)
_TEXTURE = 10.0  # levels, the least standard deviation of an animal's colour
_MOST = 6.0  # logarithmic likelihood that one pixel may say against an offset
_SHARED = 2.0  # neighbouring pixels repeat one another's evidence
_SINGLE = 4.0  # three colours of one pixel repeat one another's evidence
_BARE = 1.5  # pixels outside the outline from which the ground shows alone
_LEVELS = 8  # steps of alpha at which evidence is evaluated
_SURE = 0.3  # inverse variance from which an offset counts
_FEW = 12  # pixels of an outline, below which it says nothing about offsets
_WORST = 60  # percent of an outline that is left out, where evidence is weaker
_STAGES = ((float(BAND), 0.12), (3.0, 0.08), (2.0, 0.06))
_FREE = 0.02  # pull of an expected offset of which nothing is known, per squared pixel
_PULL = 0.05  # likewise, per squared wobble
_STEADY = 0.15  # pixels, the least wobble that masks are believed to have
_LEVELS_BETWEEN = 20, 235  # of a mask that knows its outline to less than a pixel
_HARD = 0.2  # share of an outline with such levels below which a mask is hard
_STEP, _FINER = 1.2, 4  # pixels of blur, and times finer, where a hard mask's steps are removed
_ALONG = 4.0  # pixels, over which neighbours along an outline share their offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matte:
  """The result for one picture or a part of it.

  Attributes:
    alpha: (H, W) float32 in [0, 1].
    color: (H, W, 3) float32 in [0, 1], the animal's own, without background.
    confidence: (H, W) float32 in [0, 1], what the picture itself contributed to alpha.
    offsets: (N,) pixels by which the given outline lies outside the matte's, where that is sure.
  """

  alpha: np.ndarray
  color: np.ndarray
  confidence: np.ndarray
  offsets: np.ndarray


def solve_matte(
  photo: np.ndarray,
  coverage: np.ndarray,
  plate: np.ndarray,
  spread: np.ndarray,
  known: np.ndarray,
  *,
  expected: float = 0.0,
  wobble: float | None = None,
  keep: bool = False,
) -> Matte:
  """Solves alpha and colour.

  Args:
    photo: (H, W, 3) uint8.
    coverage: (H, W) uint8, the given silhouette.
    plate: (H, W, 3) float32 levels, the empty scene at any exposure.
    spread: (H, W) float32 levels, how sure the plate is.
    known: (H, W) bool, where there is a plate.
    expected: pixels by which the camera's outlines lie outside the animal's, as known from other
      moments; a matte without evidence of its own is moved by it.
    wobble: standard deviation of such offsets along an outline, pixels; None while it is unknown.
    keep: keep the given silhouette as alpha and solve the colour alone.
  """
  image = photo.astype(np.float32)
  signed = _smooth_distance(coverage)
  ground = _light_ground(image, plate, known & (signed > BAND))
  pull = _FREE if wobble is None else _PULL / max(wobble, _STEADY) ** 2
  offsets = np.full_like(signed, -expected)
  for depth, unlit in _STAGES:
    evidence = _evidence(image, ground, spread, known, signed - offsets, depth, unlit)
    offsets, sure = _offset_field(evidence, signed, -expected, pull)
    bare = known & (signed - offsets > _BARE)
    ground = _light_ground(image, plate, bare, plain=ground)
  alpha, confidence = _combine(evidence, _ramp(signed, offsets), signed, offsets)
  if keep:
    alpha = coverage * np.float32(1 / 255)
  color = _clean_color(image, ground, alpha, evidence)
  return Matte(
    alpha=alpha,
    color=(color / 255).astype(np.float32),
    confidence=confidence,
    offsets=_outline_offsets(-offsets, np.where(known, sure, 0), signed),
  )


def outline_distance(coverage: np.ndarray) -> np.ndarray:
  """Distance (H, W) float32 from the outline of a silhouette (H, W) uint8; negative inside."""
  import cv2

  inside = (coverage > 127).astype(np.uint8)
  far, deep = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (1 - inside, inside))
  signed = np.where(inside > 0, np.float32(0.5) - deep, far - np.float32(0.5))
  # On the outline itself the levels place it more exactly than whole pixels do.
  soft = np.float32(0.5) - coverage * np.float32(1 / 255)
  edge = (np.abs(signed) < 1) & (coverage > 0) & (coverage < 255)
  return np.where(edge, soft, signed).astype(np.float32)


def _smooth_distance(coverage: np.ndarray) -> np.ndarray:
  """Likewise, of an outline without the steps of hard masks, half a pixel high.

  Blurred a little and looked at between pixels, such a mask places its outline better than to a
  pixel, and thin parts stay.
  """
  import cv2

  signed = outline_distance(coverage)
  edge = np.abs(signed) < 1
  levels = (coverage > _LEVELS_BETWEEN[0]) & (coverage < _LEVELS_BETWEEN[1])
  if not edge.any() or levels.sum() > _HARD * edge.sum():
    return signed
  smooth = _blur(coverage.astype(np.float32), _STEP)
  side = coverage.shape[1] * _FINER, coverage.shape[0] * _FINER
  fine = outline_distance((np.asarray(cv2.resize(smooth, side)) > 127.5) * np.uint8(255))
  found = np.asarray(cv2.resize(fine, coverage.shape[::-1], interpolation=cv2.INTER_AREA)) / _FINER
  return (signed + np.clip(found - signed, -0.5, 0.5)).astype(np.float32)


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
  found = np.stack([_dot(image, plate) * weight, _dot(plate, plate) * weight], -1)
  whole = found.sum((0, 1))
  light = np.full(bare.shape, whole[0] / whole[1] if whole[1] > 0 else 1.0, np.float32)
  if plain is not None:
    light = _dot(plain, plate) / np.maximum(_dot(plate, plate), 1)
  for sigma, enough in ((12.0, 1e-2), (3.0, 0.15)):
    near = _blur(found, sigma)
    here = near[..., 0] / np.maximum(near[..., 1], 1e-3)
    light = light + np.clip(_blur(weight, sigma) / enough, 0, 1) * (here - light)
  return plate * np.clip(light, *_LIGHT)[..., None].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evidence:
  """What each pixel says about its alpha by itself.

  Animal and ground nearby are Gaussians, so a mixture a F + (1 - a) B is one too. That of the
  ground is long in the direction of B itself, since light and shadow scale it. A few products of
  I - B, F - B and B are all that is needed to evaluate the mixture for any alpha.

  Attributes:
    off: (H, W) |I - B|², levels².
    along: (H, W) (I - B) (F - B).
    line: (H, W) |F - B|².
    lit: (H, W) |B|².
    off_lit: (H, W) (I - B) B.
    line_lit: (H, W) (F - B) B.
    unlit: standard deviation of the light, as a share of it.
    texture: (H, W) variance of the animal's colour nearby, levels².
    ground: (H, W) variance of the ground.
    noise: (H, W) variance of the codec.
    known: (H, W) bool, where there is a plate.
    animal: (H, W, 3) levels, the animal's colour nearby.
  """

  off: np.ndarray
  along: np.ndarray
  line: np.ndarray
  lit: np.ndarray
  off_lit: np.ndarray
  line_lit: np.ndarray
  unlit: float
  texture: np.ndarray
  ground: np.ndarray
  noise: np.ndarray
  known: np.ndarray
  animal: np.ndarray

  @property
  def contrast(self) -> np.ndarray:
    """(H, W) levels between animal and ground."""
    return np.sqrt(self.line / 3)

  def at(self, where: np.ndarray) -> _Evidence:
    """Returns the evidence of some pixels, each field (N,) instead of (H, W)."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return _Evidence(**{k: v[where] if isinstance(v, np.ndarray) else v for k, v in fields.items()})

  def cost(self, alpha: np.ndarray | float) -> np.ndarray:
    """Negative logarithm of each pixel's likelihood (H, W) at an alpha, up to a constant."""
    bare = np.square(1 - np.float32(alpha))
    rest = self.off - 2 * alpha * self.along + np.square(alpha) * self.line
    variance = np.square(alpha) * self.texture + bare * self.ground + self.noise
    # Covariance variance * 1 + light * B B^T, inverted by Sherman and Morrison's formula.
    light = bare * np.float32(self.unlit**2)
    long = variance + light * self.lit
    rest = rest - light * np.square(self.off_lit - alpha * self.line_lit) / long
    found = np.float32(0.5) * rest / variance + np.log(variance) + np.float32(0.5) * np.log(long)
    return np.where(self.known, found, 0).astype(np.float32)


def _evidence(
  image: np.ndarray,
  ground: np.ndarray,
  spread: np.ndarray,
  known: np.ndarray,
  signed: np.ndarray,
  depth: float,
  unlit: float,
) -> _Evidence:
  """Compares picture, ground and animal; see `solve_matte` and `_Evidence`."""
  apart = image - ground
  off, lit, off_lit = _dot(apart, apart), _dot(ground, ground), _dot(apart, ground)
  variance = np.square(spread) + _CODEC**2
  # Distance from the ground, in standard deviations, whatever its light.
  unlike = off - unlit**2 * np.square(off_lit) / (variance + unlit**2 * lit)
  unlike = np.where(known, np.sqrt(np.maximum(unlike / variance, 0)), 6.0)
  animal, texture = _animal_color(image, _animal_core(unlike, signed, depth))
  line = animal - ground
  squared = _dot(line, line)
  return _Evidence(
    off=off,
    along=_dot(apart, line),
    line=squared,
    lit=lit,
    off_lit=off_lit,
    line_lit=_dot(line, ground),
    unlit=unlit,
    texture=np.square(np.maximum(texture, _TEXTURE)),
    ground=np.square(spread),
    noise=_CODEC**2 + _BLEED**2 * squared / 3,
    known=known,
    animal=animal,
  )


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.einsum("hwc,hwc->hw", a, b)


def _animal_core(unlike: np.ndarray, signed: np.ndarray, depth: float) -> np.ndarray:
  """Weight (H, W) of pixels that show the animal alone.

  Those `depth` pixels inside the outline do, unless they look like the ground. Thin parts have no
  such inside: there, those do that differ most from the ground.

  Args:
    unlike: (H, W) standard deviations between picture and ground.
    signed: (H, W) distance from the outline as far as it is known.
    depth: pixels.
  """
  import cv2

  deep = signed < -depth
  side = 2 * int(np.ceil(depth)) + 1
  near_deep = cv2.dilate(deep.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
  inside = (signed < 0) & ~near_deep
  peak = cv2.dilate(np.where(inside, unlike, 0).astype(np.float32), np.ones((7, 7), np.uint8))
  thin = inside & (unlike > 0.85 * peak) & (unlike > 3)
  return np.where(deep, np.clip(unlike / 4 - 0.25, 0.02, 1), thin).astype(np.float32)


def _animal_color(image: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Colour (H, W, 3) and its standard deviation (H, W) of the nearest core pixels."""
  squares = _dot(image, image)
  stacked = np.concatenate([image * core[..., None], core[..., None]], -1)
  color = variance = None
  for sigma in (9.0, 4.0, 2.0):
    near = _blur(stacked, sigma)
    weight = np.maximum(near[..., 3:], 1e-6)
    mean = near[..., :3] / weight
    square = _blur(squares * core, sigma)[..., None] / weight
    spread = np.maximum(square - _dot(mean, mean)[..., None], 0) / 3
    if color is None or variance is None:
      color, variance = mean, spread
    else:
      trust = np.clip(near[..., 3:] / 0.03, 0, 1)
      color, variance = color + trust * (mean - color), np.maximum(variance, spread)
  assert color is not None and variance is not None
  return color, np.sqrt(variance[..., 0])


def _offset_field(
  evidence: _Evidence, signed: np.ndarray, expected: float, pull: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns where the outline lies, relative to the given one, and how sure that is.

  For each candidate offset the outline's coverage is compared with the evidence in a small
  neighbourhood; the best one is refined by a parabola.

  Args:
    evidence: of each pixel.
    signed: (H, W) distance from the given outline.
    expected: the offset without evidence.
    pull: strength of `expected`, per squared pixel.

  Returns:
    (H, W) offsets in pixels, positive where the animal reaches beyond the given outline, and their
    weights (H, W), the inverse of a variance.
  """
  band = np.abs(signed) <= BAND + 1
  own, outside = evidence.at(band), signed[band]
  table = np.stack([own.cost(step / _LEVELS) for step in range(_LEVELS + 1)])
  table = np.minimum(table - table.min(0), np.float32(_MOST)) * np.float32(1 / _SHARED)
  each, image = np.arange(table.shape[1]), np.zeros_like(signed)
  costs = []
  for offset in _OFFSETS.tolist():
    levels = (_LEVELS * _ramp(outside, offset) + np.float32(0.5)).astype(np.int32)
    image[band] = table[levels, each]
    costs.append(_blur(image, _ALONG) + np.float32(pull * (offset - expected) ** 2))
  cost = np.stack(costs)
  best = cost.argmin(0)
  inner = np.clip(best, 1, len(_OFFSETS) - 2)
  take = lambda at: np.take_along_axis(cost, at[None], 0)[0]
  before, here, after = take(inner - 1), take(inner), take(inner + 1)
  bend = np.maximum(before - 2 * here + after, 1e-6)
  step = np.clip(0.5 * (before - after) / bend, -1, 1)
  spacing = _OFFSETS[1] - _OFFSETS[0]
  found = _OFFSETS[inner] + spacing * step
  sure = np.maximum(bend / spacing**2 - 2 * pull, 0)
  return found.astype(np.float32), sure.astype(np.float32)


def _combine(
  evidence: _Evidence, moved: np.ndarray, signed: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns alpha and the share (H, W) in it of each pixel's own evidence."""
  band = np.abs(signed) <= BAND
  own, best = evidence.at(band), moved[band]
  near = np.abs(signed - offsets)[band] <= 2
  pull = np.where(near, *_TRUST).astype(np.float32)
  start = best.copy()
  least = held = own.cost(start) / _SINGLE
  for step in range(_LEVELS + 1):
    share = step / _LEVELS
    cost = own.cost(share) / _SINGLE + pull * np.abs(share - start)
    best = np.where(cost < least, np.float32(share), best)
    least = np.minimum(cost, least)
  confidence, alpha = np.zeros_like(moved), (signed < 0).astype(np.float32)
  confidence[band], alpha[band] = np.clip(held - least, 0, 1), best
  return alpha, confidence


def _clean_color(
  image: np.ndarray, ground: np.ndarray, alpha: np.ndarray, evidence: _Evidence
) -> np.ndarray:
  """Returns the animal's colour (H, W, 3) levels: most likely, given picture, ground and alpha."""
  share = alpha[..., None]
  texture = evidence.texture[..., None]
  edge = np.clip(1 - np.abs(outline_distance((alpha * 255).astype(np.uint8))) / 3, 0, 1)
  noise = (_CODEC**2 + np.square(_BLEED * evidence.contrast * edge * 3))[..., None]
  rest = image - share * evidence.animal - (1 - share) * ground
  color = evidence.animal + share * texture * rest / (share**2 * texture + noise)
  return np.clip(np.where(share >= 1 - 1e-3, _full(image, color, edge), color), 0, 255)


def _full(image: np.ndarray, color: np.ndarray, edge: np.ndarray) -> np.ndarray:
  """Returns the picture itself where no outline is near, else the cleaned colour."""
  return np.where(edge[..., None] > 0, color, image)


def _outline_offsets(offsets: np.ndarray, sure: np.ndarray, signed: np.ndarray) -> np.ndarray:
  """Returns the offsets (N,) along the outline where they are best known."""
  along = (np.abs(signed) <= 1) & (sure > _SURE)
  if along.sum() < _FEW:
    return np.zeros(0, np.float32)
  found, weight = offsets[along], sure[along]
  return found[weight >= np.percentile(weight, _WORST)]
