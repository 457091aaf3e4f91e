"""Bundles of splats, and passes over them, that the rasterizers' tests share."""

from __future__ import annotations

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import pytest

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Channels, Options
from jaxsplat_mouse.projection import project
from tests.splat_fixtures import odd_cameras, random_gaussians

MODELS = [(False, False), (False, True), (True, False), (True, True)]
each_model = pytest.mark.parametrize("flat, geometry", MODELS)


def make_options(flat: bool, geometry: bool, **changes) -> Options:
  """Options of a small image that no tile size divides."""
  defaults = dict(width=42, height=35, flat=flat, geometry=geometry, capacity=1 << 12)
  return Options(**{**defaults, **changes})


def make_bundle(options: Options, images: int = 2, count: int = 80, size: float = 0.3) -> Bundle:
  """Different splats in every image, their far half hidden in places by opaque ones."""
  cameras = odd_cameras(images, options.width, options.height)

  def one(index: int) -> Bundle:
    gaussians = random_gaussians(options.flat, count, index, size)
    gaussians = dataclasses.replace(gaussians, logit_opacities=gaussians.logit_opacities + 4.0)
    low_pass = 0.3 + 0.4 * index
    splats = project(gaussians, cameras[index], low_pass)
    return Bundle(
      features=blend.pack(splats, options.geometry),
      depths=splats.depths,
      ellipses=splats.ellipses,
      boxes=splats.boxes,
      reference=jnp.float32(0.4),
      falloff=jnp.float32(0.5 * blend.LOG2E / low_pass),
    )

  return jax.tree.map(lambda *a: jnp.stack(a), *map(one, range(images)))


def make_weights(options: Options, images: int = 2) -> Channels:
  """A random gradient of the channels."""
  shape = (images, options.channel_layout.num_channels, options.height, options.width)
  return Channels.split(jax.random.normal(jax.random.key(0), shape))


def pull_back(bundle: Bundle, options: Options, implementation: str):
  """Channels of one image, its overflow, and the pullback to its features."""
  module = importlib.import_module(f"jaxsplat_mouse.ops.rasterize.{implementation}")
  run = lambda features: module.composite_image(
    dataclasses.replace(bundle, features=features), options
  )
  channels, pull, overflow = jax.vjp(run, bundle.features, has_aux=True)
  return channels, overflow, lambda weights: pull(weights)[0]


@functools.partial(jax.jit, static_argnames=("options", "implementation"))
def composite_and_pull(bundle: Bundle, weights: Channels, *, options: Options, implementation: str):
  """Channels (I, C + 2, H, W), overflow and gradient of the features of every image."""

  def one(bundle: Bundle, weights: Channels):
    channels, overflow, pull = pull_back(bundle, options, implementation)
    return jnp.concatenate(channels), overflow, pull(weights)

  return jax.vmap(one)(bundle, weights)
