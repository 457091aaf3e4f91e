"""Held-out scenes: how a network does on animals that it did not learn from, and how that looks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.learn.gslrm.reconstruction import predict, render_samples
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights, color_on_white, supervised_loss
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages
from jaxsplat_mouse.learn.training.sampler import ViewCounts, draw_batch
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.learn.training.train_step import as_images
from jaxsplat_mouse.learn.training.trainer import summarize
from jaxsplat_mouse.learn.training.training_data import Mixture
from jaxsplat_mouse.learn.training.training_recipe import TrainingRecipe

_SEED = 0x7E57  # draws the same samples every time
_BATCHES, _SAMPLES = 8, 4


class HeldOutScenes:
  """Scenes on one device, from which the same samples are drawn for every score."""

  def __init__(self, recipe: TrainingRecipe, mixture: Mixture, device: jax.Device):
    """Copies the scenes to the device.

    Args:
      recipe: of the training.
      mixture: the scenes.
      device: that renders them.
    """
    self._recipe, self._device = recipe, device
    self._weights = tuple(mixture.weights)
    self._scenes = jax.device_put(tuple(mixture.scenes), device)
    self._score_batch = jax.jit(self._score, static_argnums=3)
    self._render_batch = jax.jit(self._render, static_argnums=2)

  def score(self, parameters: Any, capacity: int) -> dict[str, float]:
    """Returns the record of `supervised_loss` by name, over all samples.

    Args:
      parameters: of the network.
      capacity: splat-tile intersections per image.
    """
    parameters = jax.device_put(parameters, self._device)
    records = [
      self._score_batch(parameters, self._scenes, jnp.asarray(i, jnp.int32), capacity)
      for i in range(_BATCHES)
    ]
    return summarize(jax.device_get(records))

  def pictures(self, parameters: Any, capacity: int) -> np.ndarray:
    """Returns the first samples, truth above network, inputs before other views.

    Args:
      parameters: of the network.
      capacity: splat-tile intersections per image.

    Returns:
      one image (H, W, 3) uint8 with two rows a sample.
    """
    parameters = jax.device_put(parameters, self._device)
    truth, network = jax.device_get(self._render_batch(parameters, self._scenes, capacity))
    pairs = zip(truth, network, strict=True)
    rows = [np.concatenate(list(row), 1) for pair in pairs for row in pair]
    return np.round(255 * np.concatenate(rows).clip(0, 1)).astype(np.uint8)

  def _score(
    self, parameters: Any, scenes: tuple[TrainingScenes, ...], index: jax.Array, capacity: int
  ) -> dict[str, jax.Array]:
    """The record of the batch of samples that `index` () draws."""
    images = self._draw(scenes, index)
    inputs, shape = self._recipe.data.inputs, self._recipe.architecture
    _, record = supervised_loss(parameters, images, inputs, shape, LossWeights(), capacity)
    return record

  def _render(
    self, parameters: Any, scenes: tuple[TrainingScenes, ...], capacity: int
  ) -> tuple[jax.Array, jax.Array]:
    """Truth and render (B, V, S, S, 3) of the first batch, on white."""
    images, inputs = self._draw(scenes, jnp.zeros((), jnp.int32)), self._recipe.data.inputs
    seen = dataclasses.replace(
      images, rgba=images.rgba[:, :inputs], cameras=images.cameras[:, :inputs]
    )
    gaussians = predict(parameters, seen, self._recipe.architecture).gaussians
    output = render_samples(gaussians, images.cameras, capacity)
    return color_on_white(images.rgba), output.rgb

  def _draw(self, scenes: tuple[TrainingScenes, ...], index: jax.Array) -> PosedImages:
    """A batch of samples as they are in the dataset."""
    data = self._recipe.data
    counts = ViewCounts(inputs=data.inputs, total=data.views)
    seed, slots = jnp.asarray(_SEED, jnp.uint32), jnp.arange(_SAMPLES)
    return as_images(draw_batch(scenes, self._weights, seed, index, slots, counts, augments=False))
