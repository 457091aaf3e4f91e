"""One procedural mouse: its parameters, its place in the world, views, distances and surface."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.distance_field import (
  SAFE_STEP,
  Body,
  assemble,
  body_distance,
  body_gradient,
)
from jaxsplat_mouse.procedural_mouse.parameters import (
  COATS,
  POSES,
  BodyShape,
  Coat,
  Pose,
  sample_coat,
  sample_pose,
  sample_shape,
)
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.procedural_mouse.skeleton import build_primitives
from jaxsplat_mouse.procedural_mouse.tracer import TruthViews, chunk_slices, pad_chunk, trace_views

RADIUS = 0.82  # of the sphere around the origin that holds the animal in all phases of its walk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mouse:
  """All parameters of one animal: the same mouse always renders to the same bytes.

  Attributes:
    shape: proportions.
    pose: joint angles.
    coat: colours and pattern.
    scale: world units per body unit.
    yaw: heading, radians counter-clockwise from +X.
    translation: world position of the point on the floor below the pelvis.
  """

  shape: BodyShape
  pose: Pose
  coat: Coat
  scale: float = 1.0
  yaw: float = 0.0
  translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

  @property
  def floor(self) -> float:
    """World z of the floor under the feet."""
    return self.translation[2]


def make_mouse(seed: int, pose: str | Pose | None = None, coat: str | Coat | None = None) -> Mouse:
  """Draws an animal that fits within `RADIUS` of the origin, up = +Z, at a random heading.

  Args:
    seed: different seeds give different proportions, poses, coats and headings.
    pose: one of `POSES` (angles still vary with the seed), or exact angles; by default drawn.
    coat: one of `COATS` (colours still vary with the seed), or an exact coat; by default drawn.

  Raises:
    ValueError: the name of a pose or a coat is unknown.
  """
  shape_rng, pose_rng, coat_rng, place_rng = (
    np.random.default_rng([seed, part]) for part in range(4)
  )
  drawn_pose = pose_rng.choice(POSES, p=[0.3, 0.4, 0.1, 0.1, 0.1])
  drawn_coat = coat_rng.choice(COATS)
  if not isinstance(pose, Pose):
    pose = sample_pose(pose_rng, _known(pose or drawn_pose, POSES, "pose"))
  if not isinstance(coat, Coat):
    coat = sample_coat(coat_rng, _known(coat or drawn_coat, COATS, "coat"))
  yaw = float(place_rng.uniform(0, 2 * math.pi))
  return _centred(Mouse(shape=sample_shape(shape_rng), pose=pose, coat=coat, yaw=yaw))


def _known(name: str, names: tuple[str, ...], what: str) -> str:
  """Returns a name, or raises ValueError if it is not among `names`."""
  if name not in names:
    raise ValueError(f"{what}: expected one of {', '.join(names)}, got {name!r}")
  return str(name)


def _centred(mouse: Mouse) -> Mouse:
  """Scales and moves a mouse: its pose and its whole walk fit a sphere of `RADIUS`."""
  poses = [mouse, *[walking(mouse, i / 6) for i in range(6)]]
  spheres = [_spheres(body_of(m)) for m in poses]
  center, radius = enclosing_sphere(*(np.concatenate(s) for s in zip(*spheres, strict=True)))
  scale = RADIUS / radius
  x, y, z = -scale * center
  return dataclasses.replace(mouse, scale=float(scale), translation=(float(x), float(y), float(z)))


def walking(mouse: Mouse, phase: float) -> Mouse:
  """Returns the animal at a phase of its walk, in place: the floor moves below it.

  Args:
    mouse: any animal; it keeps its place, proportions and coat.
    phase: in strides; all integers give the same pose.
  """
  turn = 2 * math.pi * phase
  pose = dataclasses.replace(
    mouse.pose,
    rear=0.0,
    height=0.205 + 0.003 * math.cos(2 * turn),
    arch=0.32 + 0.02 * math.cos(2 * turn),
    bend=0.3 * mouse.pose.bend + 0.1 * math.sin(turn),
    head_yaw=0.5 * mouse.pose.head_yaw - 0.08 * math.sin(turn),
    head_pitch=0.03 * math.sin(2 * turn),
    gait_phase=phase % 1.0,
    stride=0.16,
    lift=0.035,
    tail_yaw=mouse.pose.tail_yaw + 0.1 * math.sin(turn - 0.6),
    tail_phase=mouse.pose.tail_phase + 0.03 * math.sin(turn),
  )
  return dataclasses.replace(mouse, pose=pose)


def body_of(mouse: Mouse) -> Body:
  """Returns the primitives of the animal's distance field, in the world."""
  posed = build_primitives(mouse.shape, mouse.pose)
  rest = build_primitives(mouse.shape, Pose())
  return assemble(posed, rest, mouse.scale, mouse.yaw, np.asarray(mouse.translation))


def _spheres(body: Body) -> tuple[np.ndarray, np.ndarray]:
  """Returns centres (N, 3) and radii (N,) of spheres that hold the body, up to its fillets."""
  ends = [body.cones.start, body.cones.start + body.cones.axis]
  radii = [body.cones.radius, body.cones.radius + body.cones.taper]
  for group in (body.masses, body.details):
    longest = np.argmin(group.inverse_radii, 1)
    rows = np.arange(len(longest))
    axis, reach = group.to_local[rows, longest], 1.0 / group.inverse_radii
    thick = np.sort(reach, 1)[:, 1]
    for side in (-1, 1):
      ends.append(group.center + side * axis * (reach.max(1) - thick)[:, None])
      radii.append(thick)
  ends.append(body.ears.center)
  radii.append(body.ears.stretch * body.ears.rim + body.ears.thickness)
  return np.concatenate(ends).astype(np.float64), np.concatenate(radii).astype(np.float64)


def enclosing_sphere(centers: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, float]:
  """Returns centre and radius of a nearly smallest sphere around spheres.

  The centre steps toward the farthest sphere (Badoiu and Clarkson 2003).
  """
  middle = centers.mean(0)
  reach = lambda: np.linalg.norm(centers - middle, axis=1) + radii
  for i in range(400):
    middle = middle + (centers[np.argmax(reach())] - middle) / (i + 2)
  return middle, float(reach().max())


def render_truth(
  mouse: Mouse,
  cameras: Cameras,
  samples: int = 2,
  *,
  edge_samples: int = 4,
  fur: float = 0.0,
  lighting: Lighting | None = None,
) -> TruthViews:
  """Renders exact views of the animal.

  Args:
    mouse: the animal.
    cameras: (V,) any pinhole cameras outside the animal.
    samples: rays along each side of a pixel.
    edge_samples: likewise for pixels on the silhouette, where alpha needs finer steps.
    fur: length of soft hair outside the surface, world units: the silhouette becomes a partly
      transparent band. 0 for a hard surface; 0.01 to 0.03 looks like fur.
    lighting: lights fixed in the world.

  Returns:
    V views with straight alpha, and colour 0 where alpha is 0.
  """
  body = body_of(mouse)
  center, radius = enclosing_sphere(*_spheres(body))
  return trace_views(
    body,
    mouse.coat,
    lighting or Lighting(),
    cameras,
    (center, radius + 0.02),
    samples=samples,
    edge_samples=edge_samples,
    fur=fur,
  )


_distance = jax.jit(lambda body, p: body_distance(body, p[0], p[1], p[2]))
_gradient = jax.jit(lambda body, p: jax.numpy.stack(body_gradient(body, p[0], p[1], p[2])))


def _evaluate(function: Callable[..., jax.Array], mouse: Mouse, points: np.ndarray) -> np.ndarray:
  """Applies a compiled function of the field to points (N, 3) in chunks; returns (..., N)."""
  body, columns = body_of(mouse), np.asarray(points, np.float32).reshape(-1, 3).T
  parts = [
    np.asarray(function(body, pad_chunk(columns[:, part], padding)))[..., : part.stop - part.start]
    for part, padding in chunk_slices(columns.shape[1])
  ]
  return np.concatenate(parts, -1) if parts else np.zeros((0,), np.float32)


def signed_distance(mouse: Mouse, points: np.ndarray) -> np.ndarray:
  """Returns signed distances (...) of world points (..., 3), negative inside, exact near 0."""
  return _evaluate(_distance, mouse, points).reshape(np.shape(points)[:-1])


def truth_surface_points(mouse: Mouse, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Spreads points evenly by area over the surface.

  Points are drawn evenly in a thin layer around the surface, then moved onto it.

  Args:
    mouse: the animal.
    n: number of points.
    seed: of the points.

  Returns:
    Points (n, 3) float32, world units, and outward unit normals (n, 3).
  """
  rng = np.random.default_rng([seed, n])
  corner, cell, thickness = _surface_cells(mouse)
  found, normals, count = [], [], 0
  while count < n:
    picks = corner[rng.integers(len(corner), size=131072)]
    x = picks + rng.uniform(0, cell, (len(picks), 3))
    d = signed_distance(mouse, x)
    near = np.abs(d) < 2 * thickness
    x, d = x[near], d[near]
    slope = _evaluate(_gradient, mouse, x).T
    steepness = np.linalg.norm(slope, axis=1)
    keep = np.abs(d) < thickness * steepness
    x, d, slope, steepness = (a[keep] for a in (x, d, slope, steepness))
    x = x - slope * (d / steepness**2)[:, None]
    slope = _evaluate(_gradient, mouse, x).T
    x = x - slope * (signed_distance(mouse, x) / (slope**2).sum(1))[:, None]
    found.append(x.astype(np.float32))
    normals.append(slope / np.linalg.norm(slope, axis=1, keepdims=True))
    count += len(x)
  return np.concatenate(found)[:n], np.concatenate(normals)[:n].astype(np.float32)


def _surface_cells(mouse: Mouse, resolution: int = 64) -> tuple[np.ndarray, float, float]:
  """Returns the low corners (N, 3) of cells near the surface, their side, the layer's thickness."""
  thickness = 0.0015 * mouse.scale
  center, radius = enclosing_sphere(*_spheres(body_of(mouse)))
  radius += 0.02
  cell = 2 * radius / resolution
  axis = np.arange(resolution) * cell
  corners = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
  corners += center - radius
  d = np.abs(signed_distance(mouse, corners + 0.5 * cell))
  reach = math.sqrt(3) / 2 * cell + thickness
  return corners[d * SAFE_STEP < reach], cell, thickness
