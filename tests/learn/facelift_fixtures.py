"""Small weights by FaceLift's names."""

from __future__ import annotations

import numpy as np

_WIDTH, _PATCH, _DEPTH = 16, 4, 2


def facelift_weights(seed: int = 0) -> dict[str, np.ndarray]:
  """Random weights of two blocks, width 16, patch 4, in the order of a checkpoint."""
  d, pixels = _WIDTH, _PATCH**2
  shapes: dict[str, tuple[int, ...]] = {
    "gaussian_position_embeddings": (2, d),
    "patch_embedder.1.weight": (d, pixels * 9),
    "input_layer_norm.weight": (d,),
  }
  for i in range(_DEPTH):
    shapes |= {
      f"transformer_layers.{i}.norm1.weight": (d,),
      f"transformer_layers.{i}.norm2.weight": (d,),
      f"transformer_layers.{i}.attn.to_qkv.weight": (3 * d, d),
      f"transformer_layers.{i}.attn.fc.weight": (d, d),
      f"transformer_layers.{i}.mlp.mlp.0.weight": (4 * d, d),
      f"transformer_layers.{i}.mlp.mlp.2.weight": (d, 4 * d),
    }
  shapes |= {
    "gaussian_upsampler.layernorm.weight": (d,),
    "gaussian_upsampler.linear.weight": (14, d),
    "pixel_gaussian_decoder.0.weight": (d,),
    "pixel_gaussian_decoder.1.weight": (pixels * 14, d),
    "loss_calculator.perceptual_loss_module.net.conv1.weight": (4, 3, 3, 3),
  }
  rng = np.random.default_rng(seed)
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
