"""A float64 compositor in numpy, written from the definitions and from nothing of the package.

Every splat meets every pixel; nothing is tiled, packed or bounded. Where the package works with
projected shapes, this file intersects rays with planes in camera space, so that agreement says
something. Arrays: n splats, P = height * width pixels in row-major order.

Finite differences need a function without jumps. All yes-or-no decisions of a rendering (order, who
counts, whose alpha is clamped, which filter is active, where the median lies, which colours are cut
off) are returned as `Decisions` and may be passed back in, which freezes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

ALPHA_MIN, T_STOP, LOW_PASS = 1 / 255, 1e-4, 0.3
Parameters = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Camera:
  """One pinhole camera: world_to_camera (4, 4), intrinsics (4,) fx fy cx cy, image size."""

  world_to_camera: np.ndarray
  intrinsics: np.ndarray
  width: int
  height: int

  def to_camera(self, points: np.ndarray) -> np.ndarray:
    """Points (n, 3) of the world in camera coordinates."""
    pose = self.world_to_camera.astype(np.float64)
    return points @ pose[:3, :3].T + pose[:3, 3]

  def pixels(self) -> np.ndarray:
    """Pixel centres (P, 2)."""
    y, x = np.mgrid[: self.height, : self.width]
    return np.stack([x.ravel(), y.ravel()], -1) + 0.5


@dataclasses.dataclass(frozen=True)
class Decisions:
  """Everything in a rendering that jumps."""

  order: np.ndarray  # (n,) front to back
  counts: np.ndarray  # (P, n) in that order: blended at all
  clamped: np.ndarray  # (P, n): alpha stands at its ceiling
  filtered: np.ndarray  # (P, n): a disc's screen-space low-pass is what is seen
  median: np.ndarray  # (P,) position in the order, -1 for none
  lit: np.ndarray  # (n, 3) colours above 0
  flipped: np.ndarray  # (n,) normals turned round
  shortest: np.ndarray  # (n,) axis of an ellipsoid that serves as its normal


@dataclasses.dataclass(frozen=True)
class Rendering:
  """Images (H, W, ...), straight from the definitions; rgb is over the background."""

  rgb: np.ndarray
  alpha: np.ndarray
  depth: np.ndarray
  median_depth: np.ndarray
  normal: np.ndarray
  distortion: np.ndarray
  decisions: Decisions


def rotations(quats: np.ndarray) -> np.ndarray:
  """Rotation matrices (n, 3, 3) of quaternions wxyz: q p q* applied to the axes."""
  w, *v = (quats / np.linalg.norm(quats, axis=-1, keepdims=True)).T
  v = np.stack(v, -1)
  eye = np.eye(3)
  columns = [e + 2 * w[:, None] * np.cross(v, e) + 2 * np.cross(v, np.cross(v, e)) for e in eye]
  return np.stack(columns, -1)


def sh_values(directions: np.ndarray, sh: np.ndarray) -> np.ndarray:
  """Degree-0 or degree-1 spherical harmonics (n, 3), unshifted."""
  x, y, z = (directions / np.linalg.norm(directions, axis=-1, keepdims=True)).T
  band1 = np.sqrt(3 / (4 * np.pi))
  values = [np.full_like(x, 1 / np.sqrt(4 * np.pi)), -band1 * y, band1 * z, -band1 * x]
  assert sh.shape[1] in (1, 4), sh.shape
  return sum(value[:, None] * sh[:, k] for k, value in enumerate(values[: sh.shape[1]]))


def ellipsoid_exponents(p: Parameters, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
  """sigma (P, n) of the EWA splats, and the depth (P, n) of their centres."""
  fx, fy, cx, cy = camera.intrinsics.astype(np.float64)
  x, y, z = camera.to_camera(p["means"]).T
  margin = 0.3 * 0.5 * np.array([camera.width / fx, camera.height / fy])
  tan_x = np.clip(x / z, -cx / fx - margin[0], (camera.width - cx) / fx + margin[0])
  tan_y = np.clip(y / z, -cy / fy - margin[1], (camera.height - cy) / fy + margin[1])
  jacobian = np.zeros((len(z), 2, 3))
  jacobian[:, 0, 0], jacobian[:, 0, 2] = fx / z, -fx * tan_x / z
  jacobian[:, 1, 1], jacobian[:, 1, 2] = fy / z, -fy * tan_y / z
  half = rotations(p["quats"]) * np.exp(p["log_scales"])[:, None, :]
  half = jacobian @ camera.world_to_camera[:3, :3].astype(np.float64) @ half
  covariance = half @ half.swapaxes(-1, -2) + LOW_PASS * np.eye(2)
  centers = np.stack([fx * x / z + cx, fy * y / z + cy], -1)
  offsets = camera.pixels()[:, None] - centers
  whitened = np.einsum("pni,nij->pnj", offsets, np.linalg.inv(covariance))
  return 0.5 * (whitened * offsets).sum(-1), np.broadcast_to(z, offsets.shape[:2])


def disc_exponents(
  p: Parameters, camera: Camera, filtered: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """sigma (P, n) of discs, depth (P, n) of what is seen, and where that is the low-pass.

  The ray of every pixel is cut with the plane of every disc. Where the screen-space low-pass is the
  larger of the two responses the ray sees the splat's centre, not its plane.
  """
  fx, fy, cx, cy = camera.intrinsics.astype(np.float64)
  centers = camera.to_camera(p["means"])
  axes = camera.world_to_camera[:3, :3].astype(np.float64) @ rotations(p["quats"])
  rays = np.concatenate([camera.pixels(), np.ones((camera.width * camera.height, 1))], -1)
  rays[:, 0], rays[:, 1] = (rays[:, 0] - cx) / fx, (rays[:, 1] - cy) / fy
  with np.errstate(all="ignore"):
    distance = (axes[..., 2] * centers).sum(-1) / (rays @ axes[..., 2].T)
    offset = distance[..., None] * rays[:, None] - centers
    local = np.stack([(offset * axes[..., k]).sum(-1) for k in (0, 1)], -1)
    on_disc = ((local / np.exp(p["log_scales"])) ** 2).sum(-1) / 2
  on_disc = np.where((distance > 0) & np.isfinite(on_disc), on_disc, np.inf)
  image = centers[:, :2] / centers[:, 2:] * [fx, fy] + [cx, cy]
  on_screen = ((camera.pixels()[:, None] - image) ** 2).sum(-1)
  if filtered is None:
    filtered = on_screen < on_disc
  depth = np.where(filtered, centers[:, 2], distance)
  return np.where(filtered, on_screen, on_disc), depth, filtered


def render(
  p: Parameters,
  camera: Camera,
  background: np.ndarray,
  *,
  alpha_max: float,
  near: float,
  far: float,
  decisions: Decisions | None = None,
) -> Rendering:
  """Composites ellipsoids (log_scales (n, 3)) or discs (n, 2), all in front of the camera.

  `near` and `far` map a depth d to m = far / (far - near) * (1 - near / d) in the distortion.
  """
  p = {name: np.asarray(value, np.float64) for name, value in p.items()}
  fixed = decisions
  flat = p["log_scales"].shape[-1] == 2
  z = camera.to_camera(p["means"])[:, 2]
  assert (z > 0).all(), "the oracle has no near plane"
  order = np.argsort(z, kind="stable") if fixed is None else fixed.order
  if flat:
    unsorted = None if fixed is None else fixed.filtered[:, np.argsort(order)]
    sigma, depth, filtered = disc_exponents(p, camera, unsorted)
  else:
    sigma, depth = ellipsoid_exponents(p, camera)
    filtered = np.zeros(sigma.shape, bool)
  sigma, depth, filtered = sigma[:, order], depth[:, order], filtered[:, order]

  raw = np.exp(-sigma) / (1 + np.exp(-p["logit_opacities"][order]))
  clamped = raw > alpha_max if fixed is None else fixed.clamped
  alpha = np.where(clamped, alpha_max, raw)
  if fixed is None:
    counts = (alpha >= ALPHA_MIN) & (sigma >= 0)
    counts &= np.cumprod(1 - alpha * counts, -1) > T_STOP
  else:
    counts = fixed.counts
  alpha = alpha * counts
  behind = np.cumprod(1 - alpha, -1)
  before = np.concatenate([np.ones((len(alpha), 1)), behind[:, :-1]], -1)
  weight = alpha * before
  median = _last(counts & (before > 0.5)) if fixed is None else fixed.median

  colors, lit = _colors(p, camera, None if fixed is None else fixed.lit)
  normals, flipped, shortest = _normals(p, camera, fixed)
  background = np.asarray(background, np.float64)
  coverage = weight.sum(-1)
  images = dict(
    rgb=weight @ colors[order] + behind[:, -1:] * background,
    alpha=coverage,
    depth=np.divide(
      (weight * depth).sum(-1), coverage, out=np.zeros_like(coverage), where=coverage > 0
    ),
    median_depth=np.where(median >= 0, depth[np.arange(len(depth)), median], 0.0),
    normal=weight @ normals[order],
    distortion=_distortion(weight, far / (far - near) * (1 - near / depth)),
  )
  taken = Decisions(order, counts, clamped, filtered, median, lit, flipped, shortest)
  shape = (camera.height, camera.width)
  return Rendering(
    **{name: image.reshape(shape + image.shape[1:]) for name, image in images.items()},
    decisions=taken,
  )


def _last(flags: np.ndarray) -> np.ndarray:
  """Index (P,) of the last True of each row, -1 for none."""
  return np.where(flags.any(-1), flags.shape[1] - 1 - flags[:, ::-1].argmax(-1), -1)


def _colors(p: Parameters, camera: Camera, lit: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  """max(SH + 0.5, 0), and where it is above 0."""
  values = sh_values(p["means"] - _camera_center(camera), p["sh"]) + 0.5
  lit = values > 0 if lit is None else lit
  return values * lit, lit


def _normals(
  p: Parameters, camera: Camera, fixed: Decisions | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """World normals (n, 3) turned toward the camera: a disc's, or an ellipsoid's shortest axis."""
  flat = p["log_scales"].shape[-1] == 2
  if fixed is not None:
    shortest = fixed.shortest
  else:
    shortest = np.full(len(p["means"]), 2) if flat else p["log_scales"].argmin(-1)
  normals = rotations(p["quats"])[np.arange(len(shortest)), :, shortest]
  sight = p["means"] - _camera_center(camera)
  flipped = (normals * sight).sum(-1) > 0 if fixed is None else fixed.flipped
  return np.where(flipped[:, None], -normals, normals), flipped, shortest


def _camera_center(camera: Camera) -> np.ndarray:
  """Where the camera stands in the world."""
  return np.linalg.inv(camera.world_to_camera.astype(np.float64))[:3, 3]


def _distortion(weight: np.ndarray, mapped: np.ndarray) -> np.ndarray:
  """Sum (P,) over pairs i < j of w_i w_j (m_i - m_j)^2, pair by pair."""
  mapped = np.where(weight > 0, mapped, 0.0)  # a splat without weight may have no depth
  total = np.zeros(len(weight))
  for j in range(1, weight.shape[1]):
    pairs = weight[:, :j] * (mapped[:, :j] - mapped[:, j : j + 1]) ** 2
    total += weight[:, j] * pairs.sum(-1)
  return total


def finite_differences(
  function: Callable[[Parameters], np.ndarray], p: Parameters, step: float = 1e-5
) -> Parameters:
  """Central differences of function(p) (k,) by every entry of every parameter: name -> (k, ...)."""
  p = {name: np.asarray(value, np.float64) for name, value in p.items()}
  gradients = {}
  for name, value in p.items():
    columns = []
    for i in range(value.size):
      moved = []
      for sign in (1, -1):
        changed = value.copy()
        changed.reshape(-1)[i] += sign * step
        moved.append(function({**p, name: changed}))
      columns.append((moved[0] - moved[1]) / (2 * step))
    gradients[name] = np.stack(columns, -1).reshape(-1, *value.shape)
  return gradients
