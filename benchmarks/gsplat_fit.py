"""A fit with gsplat's kernels: this project's re-implementation of a recipe.

    python -m benchmarks.gsplat_quality           starts such fits from our hull and scores them

A fixed number of ellipsoids, all views in every step, L1 and SSIM over a random background, a mask
loss, pressure on opacities and scales, opacity decay, and gsplat's own MCMC strategy (Kheradmand et
al. 2024) for relocation and noise.

Parameters are a dictionary of tensors, as gsplat's strategies expect: `means` (N, 3), `scales`
(N, 3) logarithms, `quats` (N, 4) w x y z, `opacities` (N,) logits, `features` (N, 3) spherical
harmonics of degree 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gsplat
import numpy as np
import torch

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians3D
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.spherical_harmonics import C0

Parameters = dict[str, torch.nn.Parameter]
# Parameters, (V, 4, 4) world to camera, (V, 3, 3) intrinsics, width, height -> colour multiplied by
# alpha (V, H, W, 3), and alpha (V, H, W, 1).
Rasterizer = Callable[
  [Parameters, torch.Tensor, torch.Tensor, int, int], tuple[torch.Tensor, torch.Tensor]
]

_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5
_ADAM_EPSILON = 1e-15  # as gsplat's trainers: gradients of single splats are tiny
_FAINTEST = 1e-8  # opacity whose logit is still an ordinary number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """The recipe called "B + opacity regulariser .03"; all losses are means.

  Attributes:
    iterations: optimisation steps.
    ssim_weight: share of 1 - SSIM in the photometric loss, the rest is L1.
    mask_weight: of the L1 distance between alpha and silhouette.
    opacity_weight: of the mean opacity.
    scale_weight: of the mean standard deviation.
    opacity_decay: factor on every opacity, per step.
    relocate_every: steps between relocations of dead Gaussians.
    min_opacity: a Gaussian at or below it is dead.
    noise: strength of the noise on positions, times the current position rate.
    rates: Adam's learning rates.
    position_final: what the exponential decay leaves of the position rate.
  """

  iterations: int = 700
  ssim_weight: float = 0.2
  mask_weight: float = 0.5
  opacity_weight: float = 0.03
  scale_weight: float = 0.1
  opacity_decay: float = 0.998
  relocate_every: int = 100
  min_opacity: float = 0.005
  noise: float = 2.5e5
  rates: dict[str, float] = dataclasses.field(
    default_factory=lambda: {
      "means": 0.0008,
      "features": 0.01,
      "opacities": 0.05,
      "scales": 0.005,
      "quats": 0.001,
    }
  )
  position_final: float = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
  """The photographs of one scene on the device.

  Attributes:
    poses: (V, 4, 4) world to camera.
    intrinsics: (V, 3, 3).
    width: pixels.
    height: pixels.
    colors: (V, H, W, 3) multiplied by alpha.
    alphas: (V, H, W, 1).
    seen: (V, H, W, 1) float, 1 inside the frame of the photograph.
  """

  poses: torch.Tensor
  intrinsics: torch.Tensor
  width: int
  height: int
  colors: torch.Tensor
  alphas: torch.Tensor
  seen: torch.Tensor


def rasterize(
  parameters: Parameters, poses: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
  """Renders ellipsoids with gsplat; see `Rasterizer`.

  Args:
    parameters: (N,).
    poses: (V, 4, 4) world to camera.
    intrinsics: (V, 3, 3).
    width: pixels.
    height: pixels.

  Returns:
    colour multiplied by alpha (V, H, W, 3), and alpha (V, H, W, 1).
  """
  rgb, alpha, _ = gsplat.rasterization(
    means=parameters["means"],
    quats=parameters["quats"],
    scales=torch.exp(parameters["scales"]),
    opacities=torch.sigmoid(parameters["opacities"]),
    colors=torch.clamp_min(parameters["features"] * C0 + 0.5, 0.0),
    viewmats=poses,
    Ks=intrinsics,
    width=width,
    height=height,
    packed=False,
  )
  return rgb, alpha


def tensor(array: np.ndarray, device: str) -> torch.Tensor:
  """Returns a float32 copy on the device."""
  return torch.tensor(np.array(array, np.float32), device=device)


def camera_tensors(cameras: Cameras, device: str) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns world to camera (V, 4, 4) and intrinsics (V, 3, 3); gsplat's pixels are ours too."""
  values = np.asarray(cameras.intrinsics, np.float32)
  matrices = np.zeros((len(values), 3, 3), np.float32)
  matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]] = values
  matrices[:, 2, 2] = 1.0
  return tensor(cameras.world_to_camera, device), tensor(matrices, device)


def make_views(scene: Scene, device: str) -> Views:
  """Returns the whole photographs of a scene, not cropped."""
  width, height = scene.cameras.width, scene.cameras.height
  x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
  x0, y0, x1, y1 = np.asarray(scene.frames, np.float32).T[..., None]
  columns, rows = (x > x0) & (x < x1), (y > y0) & (y < y1)
  seen = rows[:, :, None] & columns[:, None, :] & np.asarray(scene.view_mask)[:, None, None]
  poses, intrinsics = camera_tensors(scene.cameras, device)
  alphas = np.asarray(scene.alphas)[..., None]
  return Views(
    poses=poses,
    intrinsics=intrinsics,
    width=width,
    height=height,
    colors=tensor(scene.images * alphas, device),
    alphas=tensor(alphas, device),
    seen=tensor(seen[..., None], device),
  )


def make_parameters(gaussians: Gaussians3D, device: str) -> Parameters:
  """Returns Gaussians (N,) of degree 0 as the parameters that gsplat optimises."""
  arrays = {
    "means": gaussians.means,
    "scales": gaussians.log_scales,
    "quats": gaussians.quats,
    "opacities": gaussians.logit_opacities,
    "features": gaussians.sh[:, 0],
  }
  return {name: torch.nn.Parameter(tensor(value, device)) for name, value in arrays.items()}


def make_optimizers(parameters: Parameters, recipe: Recipe) -> dict[str, torch.optim.Adam]:
  """Returns one Adam per parameter, as gsplat's strategies expect."""
  return {
    name: torch.optim.Adam([value], lr=recipe.rates[name], eps=_ADAM_EPSILON)
    for name, value in parameters.items()
  }


def make_strategy(count: int, recipe: Recipe) -> gsplat.MCMCStrategy:
  """Returns gsplat's MCMC strategy at a fixed number of Gaussians: `count` is its cap."""
  return gsplat.MCMCStrategy(
    cap_max=count,
    noise_lr=recipe.noise,
    refine_start_iter=0,
    refine_stop_iter=recipe.iterations,
    refine_every=recipe.relocate_every,
    min_opacity=recipe.min_opacity,
  )


def fit(
  parameters: Parameters,
  views: Views,
  seed: int,
  recipe: Recipe,
  rasterizer: Rasterizer = rasterize,
) -> Parameters:
  """Optimises parameters in place.

  Args:
    parameters: (N,); relocation replaces the tensors in the dictionary.
    views: photographs.
    seed: of backgrounds, relocation and noise.
    recipe: settings.
    rasterizer: gsplat's, or another for a test.

  Returns:
    `parameters`.
  """
  # TF32 is too coarse for the variances of SSIM, which are small differences of large sums.
  torch.set_float32_matmul_precision("highest")
  torch.manual_seed(seed)
  optimizers = make_optimizers(parameters, recipe)
  strategy = make_strategy(len(parameters["means"]), recipe)
  strategy.check_sanity(parameters, optimizers)
  state = strategy.initialize_state()
  for step in range(recipe.iterations):
    rate = recipe.rates["means"] * recipe.position_final ** (step / recipe.iterations)
    optimizers["means"].param_groups[0]["lr"] = rate
    total_loss(parameters, views, recipe, rasterizer).backward()
    for optimizer in optimizers.values():
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
    decay_opacity(parameters, recipe.opacity_decay)
    strategy.step_post_backward(parameters, optimizers, state, step, {}, lr=rate)
  return parameters


def total_loss(
  parameters: Parameters, views: Views, recipe: Recipe, rasterizer: Rasterizer
) -> torch.Tensor:
  """Returns the loss () of one step; draws one background colour per view.

  Args:
    parameters: (N,).
    views: photographs.
    recipe: weights.
    rasterizer: renders the parameters.
  """
  rgb, alpha = rasterizer(parameters, views.poses, views.intrinsics, views.width, views.height)
  background = torch.rand(len(rgb), 1, 1, 3, device=rgb.device)
  target = views.colors + (1.0 - views.alphas) * background
  seen = views.seen > 0
  rendered = torch.where(seen, rgb + (1.0 - alpha) * background, target)
  mean = lambda values: (values * views.seen).sum() / (views.seen.sum() * values.shape[-1])
  photometric = (1.0 - recipe.ssim_weight) * mean((rendered - target).abs())
  photometric += recipe.ssim_weight * (1.0 - mean(ssim_map(rendered, target)))
  return (
    photometric
    + recipe.mask_weight * mean((alpha - views.alphas).abs())
    + recipe.opacity_weight * torch.sigmoid(parameters["opacities"]).mean()
    + recipe.scale_weight * torch.exp(parameters["scales"]).mean()
  )


@torch.no_grad()
def decay_opacity(parameters: Parameters, factor: float) -> None:
  """Multiplies every opacity by `factor` < 1."""
  opacities = torch.sigmoid(parameters["opacities"]) * factor
  parameters["opacities"].copy_(torch.logit(opacities.clamp_min(_FAINTEST)))


def ssim_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  """Returns the structural similarity (V, H, W, C) of images in [0, 1] (Wang et al. 2004, eq. 13).

  Gaussian window of 11 pixels, sigma 1.5, zeros beyond the image, population covariance.
  """
  rows, columns = _window_matrix(x.shape[1], x.device), _window_matrix(x.shape[2], x.device)
  x, y = x.movedim(-1, 1), y.movedim(-1, 1)
  blurred = rows @ torch.stack([x, y, x * x, y * y, x * y]) @ columns
  mean_x, mean_y, square_x, square_y, product = blurred.unbind()
  both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
  similarity = (2.0 * both + _SSIM_C1) * (2.0 * (product - both) + _SSIM_C2)
  similarity = similarity / ((squares + _SSIM_C1) * (square_x + square_y - squares + _SSIM_C2))
  return similarity.movedim(1, -1)


def _window_matrix(size: int, device: torch.device) -> torch.Tensor:
  """Returns a symmetric (size, size) matrix whose product with a line of pixels blurs the line."""
  index = torch.arange(size, device=device)
  distance = (index[:, None] - index[None, :]).abs().float()
  weights = torch.exp(-0.5 * (distance / _WINDOW_SIGMA) ** 2)
  offsets = torch.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1, device=device).float()
  total = torch.exp(-0.5 * (offsets / _WINDOW_SIGMA) ** 2).sum()
  return torch.where(distance <= _WINDOW_RADIUS, weights / total, torch.zeros_like(weights))
