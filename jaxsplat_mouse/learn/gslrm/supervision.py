"""What a training step minimises: renders of the prediction against views of the same animal.

The network sees the first views of a sample and is judged in all of them. Every view's loss is
divided by its silhouette's share of the image, as in a fit, so that it does not depend on how much
of a frame the animal fills.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplat_mouse.gaussians import opacities
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.learn.gslrm.reconstruction import Prediction, predict, render_samples
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages
from jaxsplat_mouse.ops.photometric.api import photometric
from jaxsplat_mouse.rendering import RenderOutput

_SMALLEST_SHARE = 1e-3  # of a silhouette: a view without an animal must not outweigh the others
_SOLID = 0.05  # opacity above which a Gaussian counts as visible


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
  """Weights of a view's losses.

  Attributes:
    color: of the mean squared difference of colours on white.
    alpha: of that of coverage and silhouette.
    ssim: of 1 - SSIM of the colours.
  """

  color: float = 1.0
  alpha: float = 1.0
  ssim: float = 0.0


def supervised_loss(
  parameters: Any,
  images: PosedImages,
  inputs: int,
  architecture: Architecture,
  weights: LossWeights,
  capacity: int | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Compares what the network makes of a batch with all of its views.

  Args:
    parameters: of the network.
    images: (B, V) views.
    inputs: the first views of a sample that the network sees.
    architecture: the network's shape.
    weights: of the losses.
    capacity: as in `render_samples`.

  Returns:
    the mean loss () of all views; and for the record () numbers by name, see `_record`.
  """
  seen = PosedImages(rgba=images.rgba[:, :inputs], cameras=images.cameras[:, :inputs])
  prediction = predict(parameters, seen, architecture)
  output = render_samples(prediction.gaussians, images.cameras, capacity)
  parts = jax.vmap(jax.vmap(lambda o, rgba: view_errors(o, rgba, weights)))(output, images.rgba)
  mean = {name: value.mean() for name, value in parts.items()}
  total = weights.color * mean["color"] + weights.alpha * mean["alpha"]
  if weights.ssim > 0:
    total = total + weights.ssim * mean["ssim"]
  record = _record(jax.lax.stop_gradient((prediction, output)), images, inputs)
  return total, {**mean, "loss": total, **record}


def view_errors(
  output: RenderOutput, rgba: jax.Array, weights: LossWeights
) -> dict[str, jax.Array]:
  """Returns the losses () of one view by name, over its silhouette's share of the image.

  Args:
    output: the render (H, W, ...) on white.
    rgba: (H, W, 4) the view.
    weights: those that are 0 are not computed where that takes time.
  """
  alpha, wanted = rgba[..., 3], color_on_white(rgba)
  share = jnp.maximum(alpha.mean(), _SMALLEST_SHARE)
  parts = {
    "color": ((output.rgb - wanted) ** 2).mean() / share,
    "alpha": ((output.alpha - alpha) ** 2).mean() / share,
  }
  if weights.ssim > 0:
    _, similarity = photometric(output.rgb, wanted)
    parts["ssim"] = (1.0 - similarity) / share
  return parts


def view_scores(output: RenderOutput, rgba: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns `metrics.fg_psnr` and `metrics.iou` () of one view, computed on the device.

  Args:
    output: the render (H, W, ...) on white.
    rgba: (H, W, 4) the view; where both are empty, the scores are 100 dB and 0.
  """
  rendered, wanted = output.alpha > 0.5, rgba[..., 3] > 0.5
  either = rendered | wanted
  count = jnp.maximum(either.sum(), 1)
  squared = ((output.rgb - color_on_white(rgba)) ** 2).mean(-1)
  error = jnp.where(either, squared, 0.0).sum() / count
  return -10.0 * jnp.log10(jnp.maximum(error, 1e-10)), (rendered & wanted).sum() / count


def color_on_white(rgba: jax.Array) -> jax.Array:
  """Composites straight RGBA (..., 4) on white; returns (..., 3)."""
  return rgba[..., :3] * rgba[..., 3:] + (1.0 - rgba[..., 3:])


def _record(
  result: tuple[Prediction, RenderOutput], images: PosedImages, inputs: int
) -> dict[str, jax.Array]:
  """Scores of input and other views apart, and what found no room."""
  prediction, output = result
  decibel, overlap = jax.vmap(jax.vmap(view_scores))(output, images.rgba)
  opacity = opacities(prediction.gaussians)
  record = {
    "input_fg_psnr": decibel[:, :inputs].mean(),
    "input_iou": overlap[:, :inputs].mean(),
    "opacity": opacity.mean(),
    "visible": (opacity > _SOLID).mean(),
    "dropped_tokens": prediction.dropped_tokens.sum(),
    "dropped_splats": prediction.dropped_splats.sum(),
    "overflow": output.overflow.max(),
  }
  if images.rgba.shape[1] > inputs:
    record |= {"novel_fg_psnr": decibel[:, inputs:].mean(), "novel_iou": overlap[:, inputs:].mean()}
  return record
