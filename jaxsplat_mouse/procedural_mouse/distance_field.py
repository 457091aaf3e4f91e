"""The signed distance field of one animal: a smooth union of tapered capsules, ellipsoids and ears.

Distances are negative inside. They are exact to first order at the surface, so depth, normals and
sampled points are exact; farther away they are bounds that sphere tracing can follow when scaled by
`SAFE_STEP`. Points are three arrays x, y, z of one shape, which vectorises better than rows. A loop
visits the primitives, so the program is small and compiles once for all animals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsplat_mouse.procedural_mouse.skeleton import EAR, BoneFrame, Parts

SAFE_STEP = 0.85
_SKIN_WIDTH = 0.012  # over which the rest coordinates of neighbouring bones mix, world units
_MATERIAL_WIDTH = 0.002


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConeGroup:
  """P capsules with linearly changing radius.

  Attributes:
    start, axis: (P, 3) first end and the vector to the second, world units.
    inverse_squared_length, radius, taper: (P,) 1 / |axis|^2, first radius, change of radius.
    blend: (P,) width of the smooth union with all primitives before.
    to_rest: (P, 3, 4) transforms from the world to body units in the rest pose.
    material: (P, 4) one-hot fur, skin, eye, ear.
  """

  start: Array
  axis: Array
  inverse_squared_length: Array
  radius: Array
  taper: Array
  blend: Array
  to_rest: Array
  material: Array

  def distance(self, x: Array, y: Array, z: Array) -> Array:
    """Returns the distance to one cone (fields without their leading axis)."""
    x, y, z = x - self.start[0], y - self.start[1], z - self.start[2]
    a, b, c = self.axis[0], self.axis[1], self.axis[2]
    h = jnp.clip((x * a + y * b + z * c) * self.inverse_squared_length, 0.0, 1.0)
    x, y, z = x - h * a, y - h * b, z - h * c
    return jnp.sqrt(x * x + y * y + z * z) - (self.radius + h * self.taper)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class EllipsoidGroup:
  """P ellipsoids.

  Attributes:
    center: (P, 3).
    to_local: (P, 3, 3) rows are the principal axes.
    inverse_radii: (P, 3).
    blend, to_rest, material: as in `ConeGroup`.
  """

  center: Array
  to_local: Array
  inverse_radii: Array
  blend: Array
  to_rest: Array
  material: Array

  def distance(self, x: Array, y: Array, z: Array) -> Array:
    """Returns the first-order distance k (k - 1) / |grad k^2 / 2|, k being the scaled radius."""
    u, v, w = _rotate(self.to_local, x - self.center[0], y - self.center[1], z - self.center[2])
    r = self.inverse_radii
    u, v, w = u * r[0], v * r[1], w * r[2]
    k2 = u * u + v * v + w * w
    u, v, w = u * r[0], v * r[1], w * r[2]
    return (k2 - jnp.sqrt(k2)) * jax.lax.rsqrt(u * u + v * v + w * w + 1e-12)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class EarGroup:
  """P bowls: spherical caps with a thickness, stretched along their first axis.

  Attributes:
    center: (P, 3) centre of the rim.
    to_local: (P, 3, 3) rows: along the ear, across it, out of its opening.
    rim: (P,) radius of the rim.
    plane: (P,) height of the rim's plane above the centre of the sphere, negative.
    sphere: (P,) radius of the sphere from which the cap is cut.
    thickness, stretch: (P,) half the thickness of the wall; length over width.
    blend, to_rest, material: as in `ConeGroup`.
  """

  center: Array
  to_local: Array
  rim: Array
  plane: Array
  sphere: Array
  thickness: Array
  stretch: Array
  blend: Array
  to_rest: Array
  material: Array

  def distance(self, x: Array, y: Array, z: Array) -> Array:
    """Returns the distance to one ear."""
    u, v, w = _rotate(self.to_local, x - self.center[0], y - self.center[1], z - self.center[2])
    u, w = u / self.stretch, w + self.plane
    across = jnp.sqrt(u * u + v * v)
    to_rim = jnp.sqrt((across - self.rim) ** 2 + (w - self.plane) ** 2)
    to_wall = jnp.abs(jnp.sqrt(across * across + w * w) - self.sphere)
    above_rim = self.plane * across < self.rim * w
    return jnp.where(above_rim, to_rim, to_wall) - self.thickness


class DistanceField(Protocol):
  """What the tracer renders: a pytree of groups of primitives."""

  @property
  def groups(self) -> tuple[Any, ...]:
    """The groups of primitives in the order of their union."""
    ...

  @property
  def ear_openings(self) -> Array:
    """(2, 3) directions out of the left and the right ear, world."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
  """All primitives of one animal in the world, in the order of their union.

  Attributes:
    masses: trunk and head.
    cones: neck, snout, legs, feet, tail.
    ears: left and right.
    details: nose and eyes.
    ear_openings: (2, 3) directions out of the left and the right ear, world.
  """

  masses: EllipsoidGroup
  cones: ConeGroup
  ears: EarGroup
  details: EllipsoidGroup
  ear_openings: Array

  @property
  def groups(self) -> tuple[Any, ...]:
    """The groups of primitives in the order of their union."""
    return self.masses, self.cones, self.ears, self.details


def _rotate(m: Array, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
  """Returns m @ (x, y, z) for one matrix (3, 3)."""
  rows = [m[i, 0] * x + m[i, 1] * y + m[i, 2] * z for i in range(3)]
  return rows[0], rows[1], rows[2]


def _fold(group: Any, step: Callable[[Any, Any], Any], carry: Any) -> Any:
  """Applies step(primitive, carry) to the primitives of a group in turn."""

  def body(i: Array, carry: Any) -> Any:
    pick = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, 0, keepdims=False)
    return step(jax.tree.map(pick, group), carry)

  return jax.lax.fori_loop(0, group.blend.shape[0], body, carry)


def _smooth_minimum(a: Array, b: Array, width: Array) -> Array:
  """Returns the quadratic smooth minimum, at most width / 4 below min(a, b), where a = b."""
  overlap = jnp.maximum(width - jnp.abs(a - b), 0.0)
  return jnp.minimum(a, b) - overlap * overlap * (0.25 / width)


def body_distance(body: DistanceField, x: Array, y: Array, z: Array) -> Array:
  """Returns the signed distance of points from the animal.

  Args:
    body: the animal.
    x: coordinates of any one shape, world units.
    y: likewise.
    z: likewise.
  """
  step = lambda item, d: _smooth_minimum(d, item.distance(x, y, z), item.blend)
  d = jnp.full_like(x, 1e3)
  for group in body.groups:
    d = _fold(group, step, d)
  return d


def body_gradient(
  body: DistanceField, x: Array, y: Array, z: Array, delta: float = 5e-4
) -> tuple[Array, ...]:
  """Estimates the gradient of the distance from four samples at the corners of a tetrahedron.

  Args:
    body: the animal.
    x: coordinates of any one shape, world units.
    y: likewise.
    z: likewise.
    delta: offset of the samples along each axis, world units.
  """
  corners = jnp.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], jnp.float32)

  def add(i: Array, total: tuple[Array, ...]) -> tuple[Array, ...]:
    c = corners[i]
    d = body_distance(body, x + c[0] * delta, y + c[1] * delta, z + c[2] * delta) / (4 * delta)
    return total[0] + c[0] * d, total[1] + c[1] * d, total[2] + c[2] * d

  return jax.lax.fori_loop(0, 4, add, (jnp.zeros_like(x),) * 3)


def surface_attributes(
  body: DistanceField, x: Array, y: Array, z: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
  """Returns the places of surface points on the animal in its rest pose, and their materials.

  Args:
    body: the animal.
    x: (N,) on the surface, world units.
    y: (N,) likewise.
    z: (N,) likewise.

  Returns:
    x, y and z (N,) in the rest pose, body units, blended between bones; and the weights (N,) of
    fur, skin, eye and ear, which sum to 1.
  """
  every = lambda name: jnp.concatenate([jnp.asarray(getattr(g, name)) for g in body.groups])
  distances = jnp.concatenate(
    [jax.vmap(lambda item: item.distance(x, y, z))(group) for group in body.groups]
  )
  # At the surface no distance is far below 0, so the exponentials do not overflow.
  distances = jnp.clip(distances, -0.1, 0.15)
  blend = lambda columns, width: jnp.einsum(
    "pk,pn->kn", columns, jnp.exp(distances * (-1.0 / width)), precision="highest"
  )
  columns = every("to_rest").reshape(-1, 12)
  ones = jnp.ones_like(columns[:, :1])
  m = blend(jnp.concatenate([columns, ones], 1), _SKIN_WIDTH)
  rest = tuple(
    (m[4 * i] * x + m[4 * i + 1] * y + m[4 * i + 2] * z + m[4 * i + 3]) / m[12] for i in range(3)
  )
  matter = blend(every("material"), _MATERIAL_WIDTH)
  total = matter.sum(0)
  return rest, tuple(matter[i] / total for i in range(4))


def assemble(posed: Parts, rest: Parts, scale: float, yaw: float, translation: np.ndarray) -> Body:
  """Places the primitives of a posed animal in the world.

  Args:
    posed: primitives in the body frame.
    rest: the same animal in the rest pose.
    scale: world units per body unit.
    yaw: heading in the world, radians counter-clockwise from +X.
    translation: (3,) world position of the body frame's origin.
  """
  c, s = np.cos(yaw), np.sin(yaw)
  turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
  place = _Placement(scale, turn, np.asarray(translation, np.float64))
  return Body(
    masses=_ellipsoids(posed.masses, rest.masses, place),
    cones=_cones(posed.cones, rest.cones, place),
    ears=_ears(posed.ears, rest.ears, place),
    details=_ellipsoids(posed.details, rest.details, place),
    ear_openings=_floats([turn @ frame.axes[:, 2] for frame, *_ in posed.ears]),
  )


@dataclasses.dataclass(frozen=True)
class _Placement:
  """The similarity from the body frame to the world."""

  scale: float
  turn: np.ndarray
  translation: np.ndarray

  def point(self, p: np.ndarray) -> np.ndarray:
    """Returns a point of the body frame in the world."""
    return self.scale * self.turn @ p + self.translation

  def to_local(self, frames: Sequence[BoneFrame]) -> np.ndarray:
    """Returns (P, 3, 3), whose rows are the axes of the frames in the world."""
    return _floats([(self.turn @ frame.axes).T for frame in frames])

  def to_rest(self, posed: Sequence[BoneFrame], rest: Sequence[BoneFrame]) -> np.ndarray:
    """Returns the transforms (P, 3, 4) from the world to the body frame of the rest pose."""
    maps = []
    for now, then in zip(posed, rest, strict=True):
      rotation = then.axes @ (self.turn @ now.axes).T / self.scale
      offset = then.origin - rotation @ self.point(now.origin)
      maps.append(np.concatenate([rotation, offset[:, None]], 1))
    return _floats(maps)


def _ellipsoids(posed: list, rest: list, place: _Placement) -> EllipsoidGroup:
  frames, radii, blends, materials = zip(*posed, strict=True)
  return EllipsoidGroup(
    center=_floats([place.point(frame.origin) for frame in frames]),
    to_local=place.to_local(frames),
    inverse_radii=_floats(1.0 / (place.scale * np.array(radii))),
    blend=_floats(place.scale * np.array(blends)),
    to_rest=place.to_rest(frames, [item[0] for item in rest]),
    material=_one_hot(materials),
  )


def _cones(posed: list, rest: list, place: _Placement) -> ConeGroup:
  starts, ends, first, second, blends, frames, materials = zip(*posed, strict=True)
  start = np.array([place.point(p) for p in starts])
  axis = np.array([place.point(p) for p in ends]) - start
  return ConeGroup(
    start=_floats(start),
    axis=_floats(axis),
    inverse_squared_length=_floats(1.0 / (axis**2).sum(-1)),
    radius=_floats(place.scale * np.array(first)),
    taper=_floats(place.scale * (np.array(second) - np.array(first))),
    blend=_floats(place.scale * np.array(blends)),
    to_rest=place.to_rest(frames, [item[5] for item in rest]),
    material=_one_hot(materials),
  )


def _ears(posed: list, rest: list, place: _Placement) -> EarGroup:
  frames, rims, thicknesses, stretches, blends = zip(*posed, strict=True)
  rim, half_angle = place.scale * np.array(rims), np.radians(48.0)
  return EarGroup(
    center=_floats([place.point(frame.origin) for frame in frames]),
    to_local=place.to_local(frames),
    rim=_floats(rim),
    plane=_floats(-rim / np.tan(half_angle)),
    sphere=_floats(rim / np.sin(half_angle)),
    thickness=_floats(place.scale * np.array(thicknesses)),
    stretch=_floats(stretches),
    blend=_floats(place.scale * np.array(blends)),
    to_rest=place.to_rest(frames, [item[0] for item in rest]),
    material=_one_hot([EAR] * len(frames)),
  )


def _floats(values: Any) -> np.ndarray:
  return np.asarray(values, np.float32)


def _one_hot(materials: Any) -> np.ndarray:
  return np.eye(4, dtype=np.float32)[list(materials)]
