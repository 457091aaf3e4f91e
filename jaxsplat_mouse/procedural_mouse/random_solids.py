"""Textured random solids: unions of 1 to 9 primitives, which stand in for a corpus of objects.

A model that is trained on animals alone forgets everything else; on random unions of textured
primitives it learns nearly as much as on scanned objects (LRM-Zero, Xie et al. 2024). The tracer
and the coats are those of the mouse, so every solid has exact truth for any camera.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.distance_field import ConeGroup, EllipsoidGroup
from jaxsplat_mouse.procedural_mouse.mouse import RADIUS, enclosing_sphere
from jaxsplat_mouse.procedural_mouse.parameters import Coat
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.procedural_mouse.tracer import TruthViews, trace_views

MAX_PRIMITIVES = 9
_SLOTS = 3  # primitives of each kind: the tracer compiles once for all solids
_HIDDEN = 0.05  # size of an unused primitive, inside a used one, over that one's size
_TEXTURE = 0.6  # body units of a coat's pattern per world unit
_MATERIALS = (
  0.6,
  0.2,
  0.1,
  0.1,
)  # shares of primitives with fur's, skin's, an eye's, an ear's look


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxGroup:
  """P boxes with rounded edges.

  Attributes:
    center: (P, 3).
    to_local: (P, 3, 3) rows are the directions of the edges.
    half_sizes: (P, 3) half the lengths of the edges, the rounding excluded.
    rounding: (P,) radius of the edges.
    blend, to_rest, material: as in `ConeGroup`.
  """

  center: Array
  to_local: Array
  half_sizes: Array
  rounding: Array
  blend: Array
  to_rest: Array
  material: Array

  def distance(self, x: Array, y: Array, z: Array) -> Array:
    """Returns the distance to one box (fields without their leading axis)."""
    offset = x - self.center[0], y - self.center[1], z - self.center[2]
    beyond = [
      jnp.abs(sum(m * o for m, o in zip(self.to_local[i], offset, strict=True)))
      - self.half_sizes[i]
      for i in range(3)
    ]
    outside = jnp.sqrt(sum(jnp.square(jnp.maximum(b, 0.0)) for b in beyond))
    inside = jnp.minimum(jnp.maximum(jnp.maximum(beyond[0], beyond[1]), beyond[2]), 0.0)
    return outside + inside - self.rounding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SolidBody:
  """The primitives of one solid, a `distance_field.DistanceField`.

  Attributes:
    ellipsoids, cones, boxes: in the order of their union.
    ear_openings: (2, 3) zeros: nothing of a solid is the inside of an ear.
  """

  ellipsoids: EllipsoidGroup
  cones: ConeGroup
  boxes: BoxGroup
  ear_openings: Array

  @property
  def groups(self) -> tuple[Any, ...]:
    """The groups of primitives in the order of their union."""
    return self.ellipsoids, self.cones, self.boxes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solid:
  """A textured solid in the world; the same solid always renders to the same bytes.

  Attributes:
    body: its primitives.
    coat: its colours and pattern.
    radius: of a sphere around the origin that holds it, world units.
  """

  body: SolidBody
  coat: Coat
  radius: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Primitives:
  """The places and sizes of `3 _SLOTS` primitives: ellipsoids, cones and boxes in turn.

  Attributes:
    center: (N, 3).
    axes: (N, 3, 3) rows are principal directions.
    size: (N, 3) half extents along them.
  """

  center: np.ndarray
  axes: np.ndarray
  size: np.ndarray


def make_solid(seed: int) -> Solid:
  """Draws a solid that fits within the mouse's `RADIUS` of the origin.

  Args:
    seed: different seeds give different shapes, colours and patterns.
  """
  shape_rng, coat_rng = (np.random.default_rng([seed, part]) for part in (10, 11))
  drawn = _draw_primitives(shape_rng)
  middle, radius = enclosing_sphere(drawn.center, drawn.size.max(1))
  scale = RADIUS / radius
  placed = _Primitives(
    center=scale * (drawn.center - middle), axes=drawn.axes, size=scale * drawn.size
  )
  blend = scale * float(shape_rng.choice([0.01, 0.03, 0.1]))
  return Solid(body=_assemble(placed, blend, shape_rng), coat=_draw_coat(coat_rng), radius=RADIUS)


def render_solid(
  solid: Solid,
  cameras: Cameras,
  samples: int = 2,
  *,
  edge_samples: int = 4,
  lighting: Lighting | None = None,
) -> TruthViews:
  """Renders exact views of a solid; arguments and result are those of `mouse.render_truth`.

  Args:
    solid: the solid.
    cameras: (V,) outside the solid.
    samples: rays along each side of a pixel.
    edge_samples: likewise for pixels on the silhouette.
    lighting: lights fixed in the world.
  """
  return trace_views(
    solid.body,
    solid.coat,
    lighting or Lighting(),
    cameras,
    (np.zeros(3), solid.radius + 0.02),
    samples=samples,
    edge_samples=edge_samples,
    fur=0.0,
  )


def _draw_primitives(rng: np.random.Generator) -> _Primitives:
  """Draws a connected union: each primitive is centred near the surface of one before it.

  Unused primitives hide in the first one, so all solids have the same number.
  """
  used = int(rng.integers(1, MAX_PRIMITIVES + 1))
  order = rng.permutation(3 * _SLOTS)
  center, axes = np.zeros((order.size, 3)), np.zeros((order.size, 3, 3))
  size = np.exp(rng.normal(math.log(0.3), 0.45, (order.size, 3)))
  # A field is a safe bound for the tracer while its primitives are not too thin.
  size = np.maximum(size, size.max(1, keepdims=True) / 4)
  for place, slot in enumerate(order):
    axes[slot] = _draw_rotation(rng)
    if place == 0:
      continue
    if place >= used:
      center[slot] = center[order[0]]
      size[slot] = _HIDDEN * size[order[0]].min()
      continue
    beside = order[int(rng.integers(place))]
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    reach = 1.0 / np.linalg.norm(axes[beside] @ direction / size[beside])
    center[slot] = center[beside] + 0.9 * reach * direction
  return _Primitives(center=center, axes=axes, size=size)


def _draw_rotation(rng: np.random.Generator) -> np.ndarray:
  """Draws an even rotation (3, 3): the axes of a Gaussian matrix (Stewart 1980)."""
  q, r = np.linalg.qr(rng.normal(size=(3, 3)))
  q = q * np.sign(np.diag(r))
  return q * np.linalg.det(q)


def _assemble(placed: _Primitives, blend: float, rng: np.random.Generator) -> SolidBody:
  """Makes the distance field of placed primitives, with a texture that turns from one to the next.

  Args:
    placed: all primitives.
    blend: width of their smooth union, world units.
    rng: of materials and textures.
  """
  floats = lambda values: np.asarray(values, np.float32)
  count = len(placed.center)
  turns = np.stack([_TEXTURE * _draw_rotation(rng) for _ in range(count)])
  to_rest = np.concatenate([turns, rng.uniform(-0.3, 0.3, (count, 3, 1))], 2)
  material = np.eye(4)[rng.choice(4, count, p=_MATERIALS)]
  kinds = [slice(k * _SLOTS, (k + 1) * _SLOTS) for k in range(3)]

  def shared(kind: slice) -> dict[str, np.ndarray]:
    columns = {
      "blend": np.full(_SLOTS, blend),
      "to_rest": to_rest[kind],
      "material": material[kind],
    }
    return {name: floats(column) for name, column in columns.items()}

  center, axes, size = placed.center, placed.axes, placed.size
  ellipsoids, cones, boxes = kinds
  # Corners of a box and ends of a cone reach no farther than the longest half extent.
  radius = np.minimum(np.minimum(size[cones, 1], size[cones, 2]), 0.8 * size[cones, 0])
  axis = 2 * (size[cones, 0] - radius)[:, None] * axes[cones, 0]
  rounding = rng.uniform(0.05, 0.5, _SLOTS) * size[boxes].min(1) / math.sqrt(3)
  return SolidBody(
    ellipsoids=EllipsoidGroup(
      center=floats(center[ellipsoids]),
      to_local=floats(axes[ellipsoids]),
      inverse_radii=floats(1.0 / size[ellipsoids]),
      **shared(ellipsoids),
    ),
    cones=ConeGroup(
      start=floats(center[cones] - 0.5 * axis),
      axis=floats(axis),
      inverse_squared_length=floats(1.0 / (axis**2).sum(1)),
      radius=floats(radius),
      taper=floats(-radius * rng.uniform(0.0, 0.8, _SLOTS)),
      **shared(cones),
    ),
    boxes=BoxGroup(
      center=floats(center[boxes]),
      to_local=floats(axes[boxes]),
      half_sizes=floats(size[boxes] / math.sqrt(3) - rounding[:, None]),
      rounding=floats(rounding),
      **shared(boxes),
    ),
    ear_openings=np.zeros((2, 3), np.float32),
  )


def _draw_coat(rng: np.random.Generator) -> Coat:
  """Draws colours of any hue, patches, stripes and grain."""
  number = lambda value: np.asarray(value, np.float32)
  color = lambda: number(rng.beta(0.8, 0.8, 3))
  return Coat(
    back=color(),
    belly=color(),
    patch=color(),
    skin=color(),
    eye=color(),
    belly_line=number(rng.uniform(-0.4, 0.4)),
    patch_cover=number(rng.choice([0.0, rng.uniform(0.2, 0.6)])),
    patch_frequency=number(rng.uniform(3.0, 9.0)),
    stripe=number(rng.choice([0.0, 1.0])),
    streaks=number(rng.uniform(0.0, 0.4)),
    mottle=number(rng.uniform(0.0, 0.6)),
    noise_seed=np.asarray(rng.integers(2**32), np.uint32),
  )
