"""From photographs to Gaussians in one pass of the network, and from those to images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians3D
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.learn.gslrm.decoding import compact, decode
from jaxsplat_mouse.learn.gslrm.network import GSLRM
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages, embed_inputs
from jaxsplat_mouse.rendering import RenderOutput, render_views

_ENTRIES_PER_SPLAT = 4  # splat-tile intersections; splats are about a pixel wide


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
  """What the network makes of a batch of samples.

  Attributes:
    gaussians: (B, N).
    dropped_tokens: (B,) int32, covered patches for which `Architecture.max_tokens` has no room.
    dropped_splats: (B,) int32, Gaussians for which `Architecture.max_splats` has none.
  """

  gaussians: Gaussians3D
  dropped_tokens: jax.Array
  dropped_splats: jax.Array


@functools.partial(jax.jit, static_argnames="architecture")
def init_parameters(architecture: Architecture, key: jax.Array) -> Any:
  """Draws the parameters of an untrained network: a dict of dicts of float32 arrays."""
  features = jnp.zeros((1, 1, architecture.patch**2 * architecture.channels))
  counts = jnp.ones((1,), jnp.int32)
  return GSLRM(architecture).init(key, features, counts)["params"]


def predict(parameters: Any, images: PosedImages, architecture: Architecture) -> Prediction:
  """Reconstructs a batch of samples.

  Args:
    parameters: of the network.
    images: (B, V) photographs that the network sees; any number V.
    architecture: the network's shape.
  """
  tokens = jax.vmap(lambda sample: embed_inputs(sample, architecture))(images)
  raw, registers = GSLRM(architecture).apply({"params": parameters}, tokens.features, tokens.count)
  gaussians = jax.vmap(lambda r, x, t: decode(r, x, t, architecture))(raw, registers, tokens)
  gaussians, dropped = jax.vmap(lambda g: compact(g, architecture.max_splats))(gaussians)
  return Prediction(gaussians=gaussians, dropped_tokens=tokens.dropped, dropped_splats=dropped)


def render_samples(
  gaussians: Gaussians3D, cameras: Cameras, capacity: int | None = None
) -> RenderOutput:
  """Renders every sample of a batch into its own cameras, on white.

  Args:
    gaussians: (B, N).
    cameras: (B, V).
    capacity: splat-tile intersections kept per image; by default `usual_capacity`.

  Returns:
    outputs (B, V, ...) without geometry.
  """
  capacity = capacity or usual_capacity(gaussians.means.shape[1])
  one = lambda g, c: render_views(g, c, background=1.0, geometry=False, capacity=capacity)
  return jax.vmap(one)(gaussians, cameras)


def usual_capacity(num_splats: int) -> int:
  """Returns splat-tile intersections per image that predicted splats seldom exceed."""
  return max(1 << 12, _ENTRIES_PER_SPLAT * num_splats)


def count_splats(architecture: Architecture, images: int) -> int:
  """Returns how many Gaussians the network makes of photographs of its own size.

  Args:
    architecture: the network's shape.
    images: number of photographs.
  """
  tokens = images * (architecture.image_size // architecture.patch) ** 2
  tokens = min(architecture.max_tokens or tokens, tokens)
  extra = architecture.registers if architecture.facelift else 0
  count = tokens * architecture.cells**2 + extra
  return min(architecture.max_splats or count, count)
