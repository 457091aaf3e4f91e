"""What gsplat's CPU reference imports and does not ship, for `make_gsplat_goldens.py` alone.

The list of the splats that count on each pixel, by gsplat's documented rules (a CUDA routine there)
and plain compositing along those lists (the package nerfacc there). The lists also refuse scenes in
which float32 could decide differently from float64.
"""

from __future__ import annotations

import sys
import types

import gsplat.cuda._wrapper as wrapper
import torch

ALPHA_MIN, ALPHA_MAX, T_STOP = 1 / 255, 0.999, 1e-4


class TooPlainError(Exception):
  """A drawn scene that exercises too little."""


class UnsuitableError(Exception):
  """A drawn scene in which some splats bring a pixel near a threshold."""

  def __init__(self, reason, splats):
    super().__init__(reason)
    self.splats = sorted({int(i) for i in splats})


def exclusive_product(x):
  """Products (..., L) of all earlier entries along the last axis."""
  return torch.cat([torch.ones_like(x[..., :1]), torch.cumprod(x, -1)[..., :-1]], -1)


def padded(values, ray_indices, n_rays):
  """Sorted per-ray lists (M,) as (n_rays, longest), zero-padded, and each entry's column."""
  counts = torch.bincount(ray_indices, minlength=n_rays)
  starts = torch.cumsum(counts, 0) - counts
  columns = torch.arange(len(ray_indices)) - starts[ray_indices]
  table = values.new_zeros(n_rays, max(int(counts.max()), 1))
  return table.index_put((ray_indices, columns), values), columns


def render_weight_from_alpha(alphas, ray_indices, n_rays):
  """nerfacc's function of this name: weights = alpha * T and T, by plain compositing."""
  table, columns = padded(alphas, ray_indices, n_rays)
  transmittance = exclusive_product(1 - table)[ray_indices, columns]
  return alphas * transmittance, transmittance


def accumulate_along_rays(weights, values, ray_indices, n_rays):
  """nerfacc's function of this name: sums of weights (times values) per ray."""
  contributions = weights[:, None] if values is None else weights[:, None] * values
  return contributions.new_zeros(n_rays, contributions.shape[1]).index_add(
    0, ray_indices, contributions
  )


def pixel_centers(width, height):
  """x and y (P,) of the pixel centres, row-major."""
  y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
  return x.flatten().double() + 0.5, y.flatten().double() + 0.5


def sigma_3d(means2d, conics, x, y):
  """Exponents (P, N) of the 3D splats."""
  dx, dy = x[:, None] - means2d[:, 0], y[:, None] - means2d[:, 1]
  a, b, c = conics.unbind(-1)
  return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy


def sigma_2d(means2d, transforms, x, y):
  """Exponents (P, N) of the 2D splats: ray-plane intersection, with the screen low-pass."""
  pixels = torch.stack([x, y, torch.ones_like(x)], -1)
  h_u = pixels[:, None, 0:1] * transforms[:, 2] - transforms[:, 0]
  h_v = pixels[:, None, 1:2] * transforms[:, 2] - transforms[:, 1]
  zeta = torch.linalg.cross(h_u, h_v)
  inside = (zeta[..., :2] / zeta[..., 2:]).square().sum(-1)
  on_screen = 2 * (pixels[:, None, :2] - means2d).square().sum(-1)
  return 0.5 * torch.minimum(inside, on_screen)


def check_margins(alpha, enough, through, order, depths):
  """Raises UnsuitableError where float32 could decide differently; TooPlainError for an easy scene.

  Args:
    alpha: (P, n) of the splats `order`, front to back.
    enough: (P, n) whether alpha reaches 1/255.
    through: (P, n) transmittance behind each splat.
    order: (n,) splat ids.
    depths: (n,) in the same order.
  """
  near = {
    "alpha near 1/255": (alpha / ALPHA_MIN - 1).abs() < 5e-5,
    "T near 1e-4": enough & ((through / T_STOP - 1).abs() < 1e-3),
    "T near 0.5": enough & ((through - 0.5).abs() < 2e-5),
    "two splats at one depth": (depths.diff(prepend=depths[:1] - 1) < 1e-4)[None],
  }
  for reason, where in near.items():
    if where.any():
      raise UnsuitableError(reason, order[where.any(0)])
  if (through <= T_STOP).any(1).sum() < 20 or (alpha >= ALPHA_MAX).sum() < 2 or enough.any(1).all():
    raise TooPlainError("too few early stops, clamped alphas or empty pixels")


def pixel_lists(sigma, first, _last, transmittances, means2d, shape, opacities, *tiling):
  """Splat, pixel and image ids of what counts, front to back on each pixel, for one image."""
  width, height, tile_size, isect_offsets, flatten_ids = tiling
  assert first == 0 and means2d.shape[0] == 1 and bool((transmittances == 1).all())
  assert isect_offsets.numel() == 1 and tile_size >= max(width, height)
  order = flatten_ids.long()
  with torch.no_grad():
    exponent = sigma(means2d[0], shape[0], *pixel_centers(width, height))
    alpha = torch.clamp_max(opacities[0] * torch.exp(-exponent), ALPHA_MAX)
    left_out = torch.ones(alpha.shape[1], dtype=torch.bool)
    left_out[order] = False
    if ((alpha >= ALPHA_MIN) & left_out).any():
      raise UnsuitableError(
        "gsplat's bounds cut off a splat that would count", torch.nonzero(left_out)
      )
    alpha, exponent = alpha[:, order], exponent[:, order]
    enough = (exponent >= 0) & (alpha >= ALPHA_MIN)
    through = torch.cumprod(1 - alpha * enough, -1)
    check_margins(alpha, enough, through, order, pixel_lists.depths[order])
    pixels, ranks = torch.nonzero(enough & (through > T_STOP), as_tuple=True)
  return order[ranks], pixels, torch.zeros_like(pixels)


def install():
  """Puts the stand-ins where gsplat's reference imports them from."""
  module = types.ModuleType("nerfacc")
  module.render_weight_from_alpha = render_weight_from_alpha
  module.accumulate_along_rays = accumulate_along_rays
  sys.modules["nerfacc"] = module
  wrapper.rasterize_to_indices_in_range = lambda *a: pixel_lists(sigma_3d, *a)
  wrapper.rasterize_to_indices_in_range_2dgs = lambda *a: pixel_lists(sigma_2d, *a)
