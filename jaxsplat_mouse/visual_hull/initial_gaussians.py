"""The Gaussians that a fit starts from: they lie on the hull and have its colours."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxsplat_mouse import spherical_harmonics
from jaxsplat_mouse.gaussians import MODELS, Gaussians
from jaxsplat_mouse.math import logit, matrix_to_quaternion, safe_normalize
from jaxsplat_mouse.visual_hull.hull import Hull, interpolate

_THICKNESS_STEPS = 12


@functools.partial(jax.jit, static_argnames=("num_gaussians", "model", "sh_degree"))
def initial_gaussians(
  hull: Hull,
  key: jax.Array,
  num_gaussians: int,
  *,
  model: str = "3dgs",
  sh_degree: int = 0,
  opacity: float = 0.7,
  scale: float = 0.65,
  flatness: float = 0.2,
  depth: float = 1.0,
) -> Gaussians:
  """Places Gaussians on and just inside the hull's surface, and orients them to it.

  Args:
    hull: one hull; from an empty one, all means are NaN.
    key: draws the offsets below the surface, and along it where points repeat.
    num_gaussians: N, any number; the hull's points are thinned or repeated evenly.
    model: `2dgs` (normal = third column of the rotation) or `3dgs` (flattened along the normal).
    sh_degree: 0 to 3; coefficients above degree 0 start at 0.
    opacity: of every Gaussian.
    scale: standard deviation in the plane, in units of the mean spacing sqrt(area / N).
    flatness: of `3dgs`, standard deviation along the normal over that in the plane.
    depth: largest offset below the surface, in units of the standard deviation in the plane.

  Raises:
    ValueError: the model is unknown.
  """
  if model not in MODELS:
    raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
  available = len(hull.points)
  pick = (jnp.arange(num_gaussians) * available) // num_gaussians
  points, normals, colors = hull.points[pick], hull.normals[pick], hull.colors[pick]
  spacing = jnp.sqrt(jnp.maximum(hull.area, 1e-20) / num_gaussians)
  first, second = _tangents(normals)
  draws = jax.random.uniform(key, (num_gaussians, 3))
  if num_gaussians > available:
    along = (draws[:, :2] - 0.5) * spacing
    points = points + along[:, :1] * first + along[:, 1:] * second
  # A disc wider than the tail it lies on would stick out on both sides.
  half_thickness = 0.5 * _thickness(hull, points, normals, 4.0 * spacing)
  deviation = jnp.minimum(scale * spacing, jnp.maximum(half_thickness, 0.25 * spacing))
  sink = jnp.minimum(depth * deviation, 0.5 * half_thickness)
  means = points - (draws[:, 2] * sink)[:, None] * normals
  # Under `vmap` nothing can be raised; with NaN means, no scene without a hull is fitted unnoticed.
  means = jnp.where(hull.shared & hull.consistent, means, jnp.nan)
  log_plane = jnp.log(deviation)[:, None]
  log_scales = jnp.concatenate([log_plane, log_plane], -1)
  if model == "3dgs":
    log_scales = jnp.concatenate([log_scales, log_plane + jnp.log(flatness)], -1)
  sh = jnp.zeros((num_gaussians, (sh_degree + 1) ** 2, 3), jnp.float32)
  return MODELS[model](
    means=means,
    log_scales=log_scales,
    quats=matrix_to_quaternion(jnp.stack([first, second, normals], -1)),
    logit_opacities=jnp.full(num_gaussians, logit(jnp.float32(opacity))),
    sh=sh.at[:, 0].set(spherical_harmonics.from_rgb(colors)),
  )


def _tangents(normals: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns two unit vectors (N, 3) that form right-handed frames with unit normals (N, 3)."""
  flat = jnp.abs(normals[:, 2:]) < 0.9
  aside = jnp.where(flat, jnp.array([0.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0]))
  first = safe_normalize(jnp.cross(aside, normals))
  return first, jnp.cross(normals, first)


def _thickness(hull: Hull, points: jax.Array, normals: jax.Array, limit: jax.Array) -> jax.Array:
  """Returns how far (N,) the solid reaches below surface points.

  Args:
    hull: one hull.
    points: (N, 3) on its surface, world units.
    normals: (N, 3) unit, outward.
    limit: () largest distance that is searched, world units.
  """
  steps = (jnp.arange(_THICKNESS_STEPS) + 1.0) / _THICKNESS_STEPS * limit

  def visit(state: tuple[jax.Array, jax.Array], step: jax.Array) -> tuple:
    thickness, inside = state
    position = (points - step * normals - hull.origin) / hull.voxel_size
    inside &= interpolate(hull.values, position) >= 127.5
    return (jnp.where(inside, step, thickness), inside), None

  start = (jnp.zeros(len(points)), jnp.ones(len(points), bool))
  return jax.lax.scan(visit, start, steps)[0][0]
