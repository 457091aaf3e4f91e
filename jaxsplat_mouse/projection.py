"""World to image: Gaussians and one camera become splats in pixels.

Notation, in pixels relative to the splat's projected centre, d = (dx, dy):

* an ellipsoid becomes a 2D Gaussian exp(-1/2 d^T Q d), Q the inverse of the EWA covariance
  (Zwicker et al. 2002) plus a low-pass of 0.3 px^2, or what the caller asks for;
* a disc keeps its perspective. The ray through a pixel meets the disc's plane at
  (u.d, v.d) / q in standard deviations along its two axes, at depth z / q, where q = 1 + w.d and
  z is the centre's depth. That is the inverse of the ray-splat transform of Huang et al. 2024
  (eq. 8-10) taken about the splat's centre: at d = 0 the hit is the centre itself, so float32
  loses nothing to large pixel coordinates, and inverse depth is linear in the pixel.

Everything is written out by element; no small matrix product is launched. Gradients are finite for
zero quaternions, edge-on discs, points behind the camera and vanishing sizes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse import spherical_harmonics
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, Gaussians3D, normals, opacities, scales
from jaxsplat_mouse.math import quaternion_columns, rotate, safe_normalize

ALPHA_MIN = 1.0 / 255.0
# Variance of the screen-space filter, px^2: added to the covariance of an ellipsoid (Kerbl et al.
# 2023); of the dot that stands in for a smaller disc (Huang et al. 2024, eq. 11).
LOW_PASS, DISC_LOW_PASS = 0.3, 0.5
NEAR = 1e-2  # camera z below which a splat is culled, world units
EXTENT = 3.33  # standard deviations beyond which a splat is never evaluated
_EDGE_ON = 1e-3  # |cosine| between a disc's normal and the ray to its centre: edge-on below it
_EDGE_SLACK = 1.05  # of the ball around a disc, against rounding where it is nearly edge-on
_FRUSTUM_MARGIN = 0.3  # of the frustum, beyond which the EWA Jacobian is frozen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Splats:
  """N splats as one camera sees them. Leading batch axes may stand before N.

  Attributes:
    centers: (N, 2) projected centres, pixels.
    shapes: (N, 3) Q as (xx, xy, yy), px^-2, for ellipsoids; (N, 6) u, v, w, px^-1, for discs.
    depths: (N,) camera z of the centres, world units.
    opacities: (N,) in (0, 1).
    colors: (N, 3).
    normals: (N, 3) unit, in the world, facing the camera.
    ellipses: (N, 6) where alpha can reach 1/255: centre x y, then (A, B, C) with
      A dx^2 + 2 B dx dy + C dy^2 <= 1, then the radius of a disc about `centers` that belongs to it
      too. No gradient.
    boxes: (N, 4) x0 y0 x1 y1 around all that, pixels; x1 < x0 marks a culled splat. No gradient.
    low_pass: () variance of the screen-space filter, px^2. No gradient.
  """

  centers: jax.Array
  shapes: jax.Array
  depths: jax.Array
  opacities: jax.Array
  colors: jax.Array
  normals: jax.Array
  ellipses: jax.Array
  boxes: jax.Array
  low_pass: jax.Array

  @property
  def flat(self) -> bool:
    """True for discs, False for ellipsoids."""
    return self.shapes.shape[-1] == 6

  @property
  def visible(self) -> jax.Array:
    """(N,) whether a splat was not culled."""
    return self.boxes[..., 2] >= self.boxes[..., 0]


def project(
  gaussians: Gaussians, camera: Cameras, low_pass: jax.Array | float | None = None
) -> Splats:
  """Projects the Gaussians (N,) of one scene into one camera.

  Args:
    gaussians: (N,).
    camera: one camera.
    low_pass: () variance of the screen-space filter, px^2; by default that of the papers.

  Returns:
    splats (N,); those that the image cannot show have empty boxes.
  """
  if isinstance(gaussians, Gaussians2D):
    return project_2d(gaussians, camera, DISC_LOW_PASS if low_pass is None else low_pass)
  return project_3d(gaussians, camera, LOW_PASS if low_pass is None else low_pass)


def project_3d(
  gaussians: Gaussians3D, camera: Cameras, low_pass: jax.Array | float = LOW_PASS
) -> Splats:
  """Projects ellipsoids by EWA, with the Jacobian frozen beyond the frustum + 30 %.

  Args:
    gaussians: (N,).
    camera: one camera.
    low_pass: () variance of the screen-space filter, px^2.
  """
  fx, fy, cx, cy = camera.intrinsics
  x, y, z, visible = _to_camera(gaussians, camera)
  tan_x, tan_y = _clamped_slopes(x / z, y / z, camera)
  r = camera.world_to_camera
  row_x = fx / z[:, None] * (r[0, :3] - tan_x[:, None] * r[2, :3])
  row_y = fy / z[:, None] * (r[1, :3] - tan_y[:, None] * r[2, :3])
  xx = xy = yy = 0.0
  sizes = scales(gaussians)
  for i, column in enumerate(quaternion_columns(gaussians.quats)):
    a = (row_x * column).sum(-1) * sizes[:, i]
    b = (row_y * column).sum(-1) * sizes[:, i]
    xx, xy, yy = xx + a * a, xy + a * b, yy + b * b
  xx, yy = xx + low_pass, yy + low_pass
  determinant = xx * yy - xy * xy
  visible &= (determinant > 0) & jnp.isfinite(determinant)
  xx, xy, yy = (jnp.where(visible, v, d) for v, d in ((xx, 1.0), (xy, 0.0), (yy, 1.0)))
  inverse = 1.0 / jnp.where(visible, determinant, 1.0)
  shapes = jnp.stack([yy * inverse, -xy * inverse, xx * inverse], -1)
  centers = jnp.stack([fx * x / z + cx, fy * y / z + cy], -1)
  level = _level(gaussians)
  radii = jnp.sqrt(2.0 * jnp.maximum(level, 0.0))
  half = jnp.stack([jnp.sqrt(xx), jnp.sqrt(yy)], -1) * radii[:, None]
  ellipses = jnp.concatenate(
    [centers, shapes / jnp.maximum(2.0 * level, 1e-6)[:, None], jnp.zeros_like(z)[:, None]], -1
  )
  boxes = jnp.concatenate([centers - half, centers + half], -1)
  visible &= level > 0
  return _assemble(gaussians, camera, centers, shapes, z, ellipses, boxes, visible, low_pass)


def project_2d(
  gaussians: Gaussians2D, camera: Cameras, low_pass: jax.Array | float = DISC_LOW_PASS
) -> Splats:
  """Projects discs with correct perspective; see the module's notation.

  Args:
    gaussians: (N,).
    camera: one camera.
    low_pass: () variance of the screen-space filter, px^2.
  """
  fx, fy, cx, cy = camera.intrinsics
  x, y, z, visible = _to_camera(gaussians, camera)
  point = jnp.stack([x, y, z], -1)
  axes = [rotate(camera.world_to_camera, c) for c in quaternion_columns(gaussians.quats)]
  distance = jnp.sqrt((point * point).sum(-1))
  cosine = (axes[2] * point).sum(-1) / distance
  steep = jnp.abs(cosine) > _EDGE_ON
  cosine = jnp.where(steep, cosine, jnp.where(cosine < 0, -_EDGE_ON, _EDGE_ON))
  factor = z / (cosine * distance)
  sizes = jnp.maximum(scales(gaussians), 1e-9)
  pixel = jnp.stack([1.0 / fx, 1.0 / fy])
  u = jnp.cross(axes[1], point)[:, :2] * (factor / sizes[:, 0])[:, None] * pixel
  v = jnp.cross(point, axes[0])[:, :2] * (factor / sizes[:, 1])[:, None] * pixel
  w = axes[2][:, :2] * factor[:, None] * pixel
  shapes = jnp.concatenate([u, v, w], -1)
  visible &= jnp.isfinite(shapes).all(-1)
  shapes = jnp.where(visible[:, None], shapes, 1.0)
  # Edge-on a disc is thinner than its low-pass, which alone is seen: that of the dot is narrower.
  dot = jnp.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]) * jnp.sqrt(2.0 / low_pass)
  shapes = jnp.where((steep | ~visible)[:, None], shapes, dot)
  centers = jnp.stack([fx * x / z + cx, fy * y / z + cy], -1)
  level = _level(gaussians)
  reach = _EDGE_SLACK * sizes.max(-1) * jnp.sqrt(2.0 * jnp.maximum(level, 0.0))
  ball = _ball_box(point, reach, camera)
  ellipses, boxes = _disc_bounds(centers, shapes, level, ball, low_pass)
  visible &= level > 0
  return _assemble(gaussians, camera, centers, shapes, z, ellipses, boxes, visible, low_pass)


def _to_camera(
  gaussians: Gaussians, camera: Cameras
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Camera coordinates of the means and which lie in front; those behind are moved to (0, 0, 1)."""
  point = rotate(camera.world_to_camera, gaussians.means) + camera.world_to_camera[:3, 3]
  x, y, z = point[:, 0], point[:, 1], point[:, 2]
  visible = (z > NEAR) & jnp.isfinite(point).all(-1)
  return jnp.where(visible, x, 0.0), jnp.where(visible, y, 0.0), jnp.where(visible, z, 1.0), visible


def _clamped_slopes(
  tan_x: jax.Array, tan_y: jax.Array, camera: Cameras
) -> tuple[jax.Array, jax.Array]:
  """x/z and y/z clamped to the view frustum plus a margin, where the linearised Jacobian holds."""
  fx, fy, cx, cy = camera.intrinsics
  margin_x = _FRUSTUM_MARGIN * 0.5 * camera.width / fx
  margin_y = _FRUSTUM_MARGIN * 0.5 * camera.height / fy
  return (
    jnp.clip(tan_x, -cx / fx - margin_x, (camera.width - cx) / fx + margin_x),
    jnp.clip(tan_y, -cy / fy - margin_y, (camera.height - cy) / fy + margin_y),
  )


def _level(gaussians: Gaussians) -> jax.Array:
  """Largest exponent (N,) at which alpha = opacity exp(-exponent) reaches 1/255; <= 0 is culled."""
  opacity = jnp.maximum(opacities(gaussians), 1e-12)
  return jnp.minimum(jnp.log(opacity / ALPHA_MIN), 0.5 * EXTENT**2)


def _ball_box(point: jax.Array, radius: jax.Array, camera: Cameras) -> jax.Array:
  """Box (N, 4) x0 y0 x1 y1 around balls in camera coordinates, pixels.

  It is all of the plane where a ball reaches the camera's own.

  Seen from above, the tangents through the camera to a circle of radius r about (x, z) have the
  slopes (x z -+ r sqrt(x^2 + z^2 - r^2)) / (z^2 - r^2).

  Args:
    point: (N, 3) centres.
    radius: (N,) of the balls.
    camera: one camera.
  """
  z = point[:, 2]
  room = z * z - radius * radius
  clear = (z > 0) & (room > 1e-4 * z * z)
  room = jnp.where(clear, room, 1.0)
  fx, fy, cx, cy = camera.intrinsics

  def edges(x: jax.Array, focal: jax.Array, middle: jax.Array) -> tuple[jax.Array, jax.Array]:
    reach = radius * jnp.sqrt(x * x + room)
    low, high = ((x * z + sign * reach) / room for sign in (-1.0, 1.0))
    return focal * low + middle, focal * high + middle

  (x0, x1), (y0, y1) = edges(point[:, 0], fx, cx), edges(point[:, 1], fy, cy)
  everywhere = jnp.array([-1e9, -1e9, 1e9, 1e9])
  return jnp.where(clear[:, None], jnp.stack([x0, y0, x1, y1], -1), everywhere)


def _disc_bounds(
  centers: jax.Array,
  shapes: jax.Array,
  level: jax.Array,
  ball: jax.Array,
  low_pass: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
  """Ellipse and box of (u.d)^2 + (v.d)^2 <= 2 level (1 + w.d)^2, and of the low-pass disc.

  The 2x2 form uu' + vv' - 2 level ww' and its adjugate are sums of outer products, so their
  determinant is a sum of squared cross products and nothing cancels for thin, slanted discs. A disc
  seen edge-on, or one that reaches the camera's plane, has no ellipse: what is seen of it lies in
  the box `ball` (N, 4) around the ball that holds it, and in the low-pass disc. No box is larger.
  """
  u, v, w = shapes[:, 0:2], shapes[:, 2:4], shapes[:, 4:6]
  cross = lambda a, b: a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
  turn = lambda a: jnp.stack([-a[:, 1], a[:, 0]], -1)
  r2 = 2.0 * jnp.maximum(level, 1e-6)
  uw, vw = cross(u, w), cross(v, w)
  determinant = cross(u, v) ** 2 - r2 * (uw**2 + vw**2)
  proper = determinant > 1e-3 * r2 * (uw**2 + vw**2) + 1e-30
  inverse = 1.0 / jnp.where(proper, determinant, 1.0)
  offset = (r2 * inverse)[:, None] * (turn(u) * uw[:, None] + turn(v) * vw[:, None])
  size = r2 * (1.0 + (w * offset).sum(-1))
  proper &= size > 0
  size = jnp.where(proper, size, 1.0)
  form = lambda i, j: u[:, i] * u[:, j] + v[:, i] * v[:, j] - r2 * w[:, i] * w[:, j]
  quadratic = jnp.stack([form(0, 0), form(0, 1), form(1, 1)], -1) / size[:, None]
  variance = jnp.stack([form(1, 1), form(0, 0)], -1) * (size * inverse)[:, None]
  half = jnp.sqrt(jnp.maximum(variance, 0.0))
  middle = centers + offset
  dot = jnp.sqrt(low_pass * r2)  # alpha of the screen-space filter: opacity exp(-|d|^2 / 2 var)
  low = jnp.maximum(jnp.where(proper[:, None], middle - half, -1e9), ball[:, :2])
  high = jnp.minimum(jnp.where(proper[:, None], middle + half, 1e9), ball[:, 2:])
  low = jnp.minimum(low, centers - dot[:, None])
  high = jnp.maximum(high, centers + dot[:, None])
  boxes = jnp.concatenate([low, high], -1)
  ellipses = jnp.concatenate([middle, quadratic, dot[:, None]], -1)
  anywhere = jnp.concatenate([centers, jnp.zeros_like(quadratic), dot[:, None]], -1)
  return jnp.where(proper[:, None], ellipses, anywhere), boxes


def _assemble(
  gaussians: Gaussians,
  camera: Cameras,
  centers: jax.Array,
  shapes: jax.Array,
  depths: jax.Array,
  ellipses: jax.Array,
  boxes: jax.Array,
  visible: jax.Array,
  low_pass: jax.Array | float,
) -> Splats:
  """Adds colour, normal and opacity, and empties the boxes of what is culled."""
  to_splat = gaussians.means - camera.centers
  normal = normals(gaussians)
  away = (normal * to_splat).sum(-1, keepdims=True) > 0
  off_image = (
    (boxes[:, 2] <= 0)
    | (boxes[:, 3] <= 0)
    | (boxes[:, 0] >= camera.width)
    | (boxes[:, 1] >= camera.height)
  )
  visible = visible & ~off_image & jnp.isfinite(boxes).all(-1)
  boxes = jnp.where(visible[:, None], boxes, jnp.array([0.0, 0.0, -1.0, -1.0]))
  return Splats(
    centers=centers,
    shapes=shapes,
    depths=depths,
    opacities=opacities(gaussians),
    colors=spherical_harmonics.evaluate_sh(gaussians.sh, safe_normalize(to_splat)),
    normals=jnp.where(away, -normal, normal),
    ellipses=jax.lax.stop_gradient(ellipses),
    boxes=jax.lax.stop_gradient(boxes),
    low_pass=jax.lax.stop_gradient(jnp.asarray(low_pass, jnp.float32)),
  )
