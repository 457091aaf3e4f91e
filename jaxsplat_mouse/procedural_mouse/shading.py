"""Lighting fixed in the world: a hemispherical sky, one key light, self-occlusion."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsplat_mouse.procedural_mouse.coat import Triple, albedo
from jaxsplat_mouse.procedural_mouse.distance_field import (
  DistanceField,
  body_distance,
  body_gradient,
  surface_attributes,
)
from jaxsplat_mouse.procedural_mouse.parameters import Coat

_OCCLUSION_TAPS = ((0.025, 1.0), (0.07, 0.6), (0.15, 0.4))  # distance from the surface, weight


def _number(value: float) -> np.ndarray:
  return np.asarray(value, np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lighting:
  """Lights in the world. With `specular` 0 a point looks the same in all views.

  Attributes:
    key_direction: (3,) toward the key light, of any length.
    key, sky, ground: () strengths of the key light and of the light from above and below.
    occlusion: () strength of self-occlusion, 0 to 1.
    specular: () strength of the highlight, which moves with the camera.
  """

  key_direction: np.ndarray = dataclasses.field(
    default_factory=lambda: np.array([0.45, -0.35, 0.8], np.float32)
  )
  key: np.ndarray = dataclasses.field(default_factory=lambda: _number(0.55))
  sky: np.ndarray = dataclasses.field(default_factory=lambda: _number(0.66))
  ground: np.ndarray = dataclasses.field(default_factory=lambda: _number(0.42))
  occlusion: np.ndarray = dataclasses.field(default_factory=lambda: _number(0.8))
  specular: np.ndarray = dataclasses.field(default_factory=lambda: _number(0.0))


def _dot(a: Triple, b: Triple | Array) -> Array:
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(v: Triple) -> Triple:
  scale = jax.lax.rsqrt(jnp.maximum(_dot(v, v), 1e-20))
  return tuple(c * scale for c in v)


def _occlusion(body: DistanceField, point: Triple, normal: Triple) -> Array:
  """Returns the share of the surroundings that the animal hides, from distances off the surface."""
  taps = jnp.array(_OCCLUSION_TAPS, jnp.float32)

  def add(i: Array, hidden: Array) -> Array:
    away = taps[i, 0]
    d = body_distance(body, *[p + away * n for p, n in zip(point, normal, strict=True)])
    return hidden + taps[i, 1] * jnp.clip(1.0 - d / away, 0.0, 1.0)

  hidden = jax.lax.fori_loop(0, taps.shape[0], add, jnp.zeros_like(point[0]))
  return hidden / sum(weight for _, weight in _OCCLUSION_TAPS)


def shade(
  body: DistanceField, coat: Coat, lighting: Lighting, point: Triple, direction: Triple
) -> tuple[Triple, Triple, Array, Array]:
  """Returns the colour and the material of surface points.

  Args:
    body: the animal.
    coat: colours and pattern.
    lighting: lights in the world.
    point: x, y, z (N,) on the surface, world units.
    direction: x, y, z (N,) unit, from the camera to the points.

  Returns:
    Red, green and blue (N,) in [0, 1], the outward unit normals, the weights (N,) of fur, and the
    hair streaks (N,) in [0, 1].
  """
  normal = _unit(body_gradient(body, *point))
  rest, materials = surface_attributes(body, *point)
  is_left = rest[1] > 0
  openings = [[body.ear_openings[side, i] for i in range(3)] for side in range(2)]
  opening = tuple(jnp.where(is_left, openings[0][i], openings[1][i]) for i in range(3))
  inner = jnp.clip(2.0 * _dot(normal, opening) + 0.1, 0.0, 1.0)
  colour, streak = albedo(coat, rest, materials, inner)

  to_key = _unit(tuple(lighting.key_direction[i] for i in range(3)))
  facing = _dot(normal, to_key)
  # Fur scatters, so the terminator is soft (wrapped Lambert).
  key = jnp.clip((facing + 0.25) / 1.25, 0.0, 1.0) ** 1.5
  open_sky = 1.0 - lighting.occlusion * _occlusion(body, point, normal)
  upward = 0.5 + 0.5 * normal[2]
  ambient = lighting.ground + (lighting.sky - lighting.ground) * upward
  light = ambient * open_sky + lighting.key * key * (0.5 + 0.5 * open_sky)
  half = _unit(tuple(k - d for k, d in zip(to_key, direction, strict=True)))
  shine = lighting.specular * jnp.clip(_dot(normal, half), 0.0, 1.0) ** 24
  # Glints are painted on the eyes, the same in all views: the key light and its mirror image.
  mirrored = -to_key[0] * normal[0] - to_key[1] * normal[1] + to_key[2] * normal[2]
  glint = materials[2] * (0.9 * (facing > 0.94) + 0.5 * (mirrored > 0.94))
  rgb = tuple(jnp.clip(c * light + shine + glint, 0.0, 1.0) for c in colour)
  return rgb, normal, materials[0], streak
