"""The transformer: patches of photographs in, raw numbers of Gaussians out.

Flax's linen and not its nnx: parameters are a plain dict of arrays beside pure functions, so that
checkpoints, conversion and `shard_map` see nothing but a pytree, and `nn.scan` gives all blocks one
trace and one array a kind of weight, (depth, ...).

Pre-norm blocks without biases (Zhang et al. 2024, sec. 3). Queries and keys are normalised (Henry
et al. 2020), which keeps attention from saturating at high learning rates; FaceLift's do without.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsplat_mouse.learn.gslrm.architecture import Architecture

_DEVIATION = 0.02  # of initial weights
_QUIET = 0.002  # of those of the head: the first Gaussians are those of the photographs' pixels
_MULTIPLE = 8  # of tokens, which cuDNN's attention asks for


class GSLRM(nn.Module):
  """The network of a batch of samples.

  Attributes:
    architecture: its shape.
    attention: `cudnn`, `xla`, or empty for what suits the device.
  """

  architecture: Architecture
  attention: str = ""

  @nn.compact
  def __call__(self, features: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Maps tokens to raw numbers.

    Args:
      features: (B, K, F) of `Tokens`.
      counts: (B,) tokens in use; the others are seen by none.

    Returns:
      (B, K, Q, Q, C) float32 for the Gaussians of every cell, and (B, R, C) for those of the
      registers, None where these have none.
    """
    shape = self.architecture
    dtype, residual = jnp.dtype(shape.dtype), _residual_dtype(shape)
    x = Linear(shape.width, dtype=dtype, name="embed")(features)
    self.sow("intermediates", "patches", x)
    registers = self.param(
      "registers",
      nn.initializers.truncated_normal(_DEVIATION),
      (shape.registers, shape.width),
      jnp.float32,
    )
    front = jnp.broadcast_to(registers.astype(x.dtype), (len(x), *registers.shape))
    x = _norm("input_norm")(jnp.concatenate([front, x], 1)).astype(residual)
    self.sow("intermediates", "tokens", x)
    x = self._blocks(x, counts)
    number = shape.cells**2 * shape.outputs
    deviation = _DEVIATION if shape.facelift else _QUIET
    head = Linear(number, dtype=dtype, out=jnp.float32, deviation=deviation, name="head")
    raw = head(_norm("output_norm")(x[:, shape.registers :]))
    raw = raw.reshape(*raw.shape[:2], shape.cells, shape.cells, shape.outputs)
    if not shape.facelift:
      return raw, None
    head = Linear(shape.outputs, dtype=dtype, out=jnp.float32, name="register_head")
    return raw, head(_norm("register_norm")(x[:, : shape.registers]))

  def _blocks(self, x: jax.Array, counts: jax.Array) -> jax.Array:
    """Applies all blocks to tokens (B, T, width), filled up to a multiple that attention likes."""
    shape, length = self.architecture, x.shape[1]
    padding = -length % _MULTIPLE
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    masked = padding > 0 or shape.max_tokens > 0
    counts = shape.registers + counts.astype(jnp.int32) if masked else None
    block = nn.remat(Block, prevent_cse=False) if shape.remat else Block
    scanned = nn.scan(
      block,
      variable_axes={"params": 0, "intermediates": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=shape.depth,
    )
    x, _ = scanned(shape, self.attention, name="blocks")(x, counts)
    return x[:, :length]


class Block(nn.Module):
  """Attention among the tokens of a sample, then a perceptron on each.

  Attributes:
    architecture: the network's shape.
    attention: as in `GSLRM`.
  """

  architecture: Architecture
  attention: str = ""

  @nn.compact
  def __call__(self, x: jax.Array, counts: jax.Array | None) -> tuple[jax.Array, None]:
    """Adds to tokens (B, T, width) what they learn; `counts` (B,) are in use, None means all."""
    shape = self.architecture
    dtype = jnp.dtype(shape.dtype)
    quiet = _DEVIATION if shape.facelift else _DEVIATION / math.sqrt(2.0 * shape.depth)
    mixed = self._attend(_norm("attention_norm")(x), counts)
    change = Linear(shape.width, dtype=dtype, deviation=quiet, name="project")(mixed)
    self.sow("intermediates", "attention", change)
    x = x + change.astype(x.dtype)
    hidden = Linear(4 * shape.width, dtype=dtype, name="expand")(_norm("perceptron_norm")(x))
    hidden = nn.gelu(hidden, approximate=False)
    change = Linear(shape.width, dtype=dtype, deviation=quiet, name="contract")(hidden)
    self.sow("intermediates", "perceptron", change)
    x = x + change.astype(x.dtype)
    self.sow("intermediates", "tokens", x)
    return x, None

  def _attend(self, x: jax.Array, counts: jax.Array | None) -> jax.Array:
    """Mixes the values of tokens (B, T, width), head by head."""
    shape = self.architecture
    dtype = jnp.dtype(shape.dtype)
    heads = (*x.shape[:2], -1, shape.head_width)
    joined = Linear(3 * shape.width, dtype=dtype, name="query_key_value")(x)
    query, key, value = (part.reshape(heads) for part in jnp.split(joined, 3, -1))
    if not shape.facelift:
      norm = lambda name: nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name=name)
      query, key = norm("query_norm")(query).astype(dtype), norm("key_norm")(key).astype(dtype)
    mixed = jax.nn.dot_product_attention(
      query,
      key,
      value,
      key_value_seq_lengths=counts,
      implementation=self.attention or _suited_attention(dtype),
    )
    return mixed.reshape(x.shape)


class Linear(nn.Module):
  """A matrix, without a bias.

  Attributes:
    features: numbers that come out.
    dtype: of the product's factors.
    out: of the product; by default that of the factors.
    deviation: standard deviation of the initial weights.
  """

  features: int
  dtype: jnp.dtype
  out: jnp.dtype | None = None
  deviation: float = _DEVIATION

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Multiplies the last axis of x (..., N)."""
    start = nn.initializers.normal(self.deviation)
    kernel = self.param("kernel", start, (x.shape[-1], self.features), jnp.float32)
    return jnp.matmul(
      x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=self.out
    )


def _norm(name: str) -> nn.LayerNorm:
  """Layer norm in float32, scaled and not shifted."""
  return nn.LayerNorm(
    epsilon=1e-5, use_bias=False, use_fast_variance=False, dtype=jnp.float32, name=name
  )


def _residual_dtype(shape: Architecture) -> jnp.dtype:
  """Type of the sum that runs through the blocks."""
  return jnp.dtype(jnp.float32 if shape.facelift else shape.dtype)


def _suited_attention(dtype: jnp.dtype) -> str:
  """cuDNN's kernel on GPUs, which has no float32: 3 to 6 times as fast as XLA's."""
  return "cudnn" if jax.default_backend() == "gpu" and dtype != jnp.float32 else "xla"
