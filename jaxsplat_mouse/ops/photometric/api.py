"""How far a render is from a photograph: L1 and structural similarity together.

Under `jax.vmap`, nested as deep as one likes, a whole batch is one launch of the GPU kernels.
"""

from __future__ import annotations

import jax

from jaxsplat_mouse.ops.implementation_registry import ImplementationRegistry

IMPLEMENTATIONS = ImplementationRegistry(
  "photometric",
  {name: f"jaxsplat_mouse.ops.photometric.{name}" for name in ("xla", "pallas")},
)


def photometric(
  x: jax.Array,
  y: jax.Array,
  observed: jax.Array | None = None,
  implementation: str | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Compares one render with its photograph; `jax.vmap` it over views and scenes.

  Args:
    x: the render (H, W, C); the only argument that receives a gradient.
    y: the photograph (H, W, C).
    observed: (H, W), see `losses`.
    implementation: `xla` or `pallas`; None takes the default of the registry.
    interpret: run Pallas kernels in the interpreter.

  Returns:
    mean absolute difference () and mean structural similarity (), as `losses.l1` and
    `losses.structural_similarity` define them.

  Raises:
    ValueError: the implementation is unknown or cannot be imported.
  """
  module = IMPLEMENTATIONS.load(IMPLEMENTATIONS.choose(implementation))
  l1, similarity = module.compare_image(x, y, observed, interpret)
  return l1, similarity
