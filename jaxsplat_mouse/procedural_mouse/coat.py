"""Colour of the animal: coat pattern and fine hair streaks from value noise in rest coordinates.

Colour is a function of the surface point in the rest pose, so all views agree and the pattern moves
with the skin. The noise is trilinear value noise on a hashed integer lattice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxsplat_mouse.procedural_mouse.parameters import Coat

Triple = tuple[Array, ...]

# Lattice cells per body unit: blotches, border of the belly, skin grain.
_ISOTROPIC = (13.0, 9.0, 75.0)
# Likewise along and across the body: two scales of hair streaks, long in the hair's direction.
_STREAKS = ((13.0, 55.0), (30.0, 105.0))
# A lattice that is rotated like this is aligned with no view.
_TURN = ((0.66, -0.54, 0.52), (0.62, 0.78, 0.02), (-0.42, 0.31, 0.85))
_RING_LENGTH = 0.02  # of the tail's scales, body units
_SPINE_HEIGHT = 0.2


def _hash(x: Array, y: Array, z: Array, seed: Array) -> Array:
  """Hashes integer lattice points to uniform numbers in [0, 1)."""
  u = lambda a: a.astype(jnp.uint32)
  h = u(x) * jnp.uint32(0x8DA6B343) ^ u(y) * jnp.uint32(0xD8163841) ^ u(z) * jnp.uint32(0xCB1AB31F)
  h = (h ^ seed) * jnp.uint32(0x2C1B3C6D)
  h = (h ^ (h >> 15)) * jnp.uint32(0x297A2D39)
  h = (h ^ (h >> 12)) * jnp.uint32(0x85EBCA6B)
  return (h >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def value_noise(x: Array, y: Array, z: Array, seed: Array) -> Array:
  """Returns smooth noise in [0, 1) with features of one lattice cell.

  Args:
    x: (N,) lattice units.
    y: (N,) likewise.
    z: (N,) likewise.
    seed: () uint32.
  """
  floors = [jnp.floor(c) for c in (x, y, z)]
  cells = [f.astype(jnp.int32) for f in floors]
  fades = [(t := c - f) * t * (3.0 - 2.0 * t) for c, f in zip((x, y, z), floors, strict=True)]
  total = jnp.zeros_like(x)
  for corner in range(8):
    offset = [(corner >> axis) & 1 for axis in range(3)]
    weight = jnp.ones_like(x)
    for fade, o in zip(fades, offset, strict=True):
      weight = weight * (fade if o else 1.0 - fade)
    i, j, k = (c + o for c, o in zip(cells, offset, strict=True))
    total = total + weight * _hash(i, j, k, seed)
  return total


def _noises(coat: Coat, rest: Triple) -> list[Array]:
  """Returns noise layers (N,): patches, those of `_ISOTROPIC`, those of `_STREAKS`."""
  x, y, z = rest
  turned = [a * x + b * y + c * z for a, b, c in _TURN]
  across = (0.8 * y - 0.6 * z, 0.6 * y + 0.8 * z)
  layer_seed = lambda layer: coat.noise_seed + layer * jnp.uint32(0x9E3779B9)

  def even(item: tuple[Array, Array]) -> Array:
    scale, layer = item
    return value_noise(scale * turned[0], scale * turned[1], scale * turned[2], layer_seed(layer))

  def streak(item: tuple[Array, Array]) -> Array:
    scale, layer = item
    return value_noise(scale[0] * x, scale[1] * across[0], scale[1] * across[1], layer_seed(layer))

  scales = jnp.stack([coat.patch_frequency, *[jnp.float32(f) for f in _ISOTROPIC]])
  layers = jnp.arange(scales.shape[0] + len(_STREAKS), dtype=jnp.uint32)
  first = jax.lax.map(even, (scales, layers[: scales.shape[0]]))
  second = jax.lax.map(streak, (jnp.array(_STREAKS, jnp.float32), layers[scales.shape[0] :]))
  return [*first, *second]


def _smoothstep(low: Array | float, high: Array | float, x: Array) -> Array:
  """Returns a smooth step from 0 at `low` to 1 at `high`."""
  t = jnp.clip((x - low) / (high - low), 0.0, 1.0)
  return t * t * (3.0 - 2.0 * t)


def _mix(a: Triple, b: Triple, t: Array) -> Triple:
  """Interpolates from colour a, at t = 0, to colour b, at t = 1."""
  return tuple(p + (q - p) * t for p, q in zip(a, b, strict=True))


def albedo(coat: Coat, rest: Triple, materials: Triple, inner_ear: Array) -> tuple[Triple, Array]:
  """Returns the colour of surface points before lighting.

  Args:
    coat: colours and pattern.
    rest: x, y, z (N,) in the rest pose, body units.
    materials: weights (N,) of fur, skin, eye and ear.
    inner_ear: (N,) in [0, 1], 1 where an ear's surface faces out of its opening.

  Returns:
    Three channels (N,) in [0, 1], and the hair streaks (N,) in [0, 1], the density of soft fur.
  """
  patches, blotches, border, grain, coarse, fine = _noises(coat, rest)
  streak = 0.42 * coarse + 0.58 * fine
  fur = _fur(coat, rest, patches, blotches, border)
  lightness = 1.0 + coat.streaks * 2.6 * (streak - 0.5) + coat.mottle * (blotches - 0.5)
  fur = tuple(c * lightness for c in fur)
  rings = 0.5 + 0.5 * jnp.sin(rest[0] * (2.0 * jnp.pi / _RING_LENGTH))
  on_tail = (rest[0] < -0.17).astype(jnp.float32)
  tone = 0.84 + 0.3 * grain - 0.24 * on_tail * rings
  skin = tuple(coat.skin[i] * tone for i in range(3))
  ear_back = _mix(tuple(0.8 * c for c in fur), skin, 0.4)
  ear = _mix(ear_back, tuple(s * (0.8 + 0.3 * blotches) for s in skin), inner_ear)
  eye = tuple(coat.eye[i] + 0.0 * grain for i in range(3))
  layers = (fur, skin, eye, ear)
  colour = tuple(
    sum(weight * layer[i] for weight, layer in zip(materials, layers, strict=True))
    for i in range(3)
  )
  return colour, streak


def _fur(coat: Coat, rest: Triple, patches: Array, blotches: Array, border: Array) -> Triple:
  """Returns the colour of fur: belly, back, dark line and patches."""
  _, y, z = rest
  wobble = 0.05 * (border - 0.5)
  outside = 0.09 * _smoothstep(0.07, 0.14, jnp.abs(y))  # Flanks and thighs belong to the back.
  upper = _smoothstep(coat.belly_line - 0.045, coat.belly_line + 0.045, z + wobble + outside)
  rgb = lambda c: tuple(c[i] + jnp.zeros_like(z) for i in range(3))
  colour = _mix(rgb(coat.belly), rgb(coat.back), upper)
  ridge = jnp.exp(-((y / 0.035) ** 2)) * _smoothstep(_SPINE_HEIGHT, _SPINE_HEIGHT + 0.1, z)
  colour = tuple(c * (1.0 - 0.55 * coat.stripe * ridge) for c in colour)
  # Value noise is about 0.5 +- 0.17: this turns a share of the surface into a threshold.
  level = 0.5 - 0.55 * (coat.patch_cover - 0.5)
  ragged = patches + 0.14 * (blotches - 0.5) + 0.1 * (border - 0.5)
  inside = _smoothstep(level - 0.03, level + 0.03, ragged) * (coat.patch_cover > 0)
  return _mix(colour, rgb(coat.patch), inside)
