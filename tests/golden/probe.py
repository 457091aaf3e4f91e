"""The fixed linear functional whose gradients the golden files hold, and where those files lie."""

from __future__ import annotations

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent


def probe(shape: tuple[int, ...], salt: int) -> np.ndarray:
  """Weights in [-1, 1] for an array of `shape`, float64: a formula, so that no file stores them.

  The phases advance by amounts incommensurable with 2 pi, so neighbours are unrelated and no
  gradient cancels by symmetry; `salt` tells the outputs apart.
  """
  phase = 1.7 * np.arange(int(np.prod(shape)), dtype=np.float64) ** 1.25 + 0.61 * salt
  return np.sin(phase).reshape(shape)


def load(name: str) -> dict[str, np.ndarray]:
  """The arrays of tests/golden/<name>.npz."""
  with np.load(FOLDER / f"{name}.npz") as archive:
    return {key: archive[key] for key in archive.files}


def assert_gradients_match(
  found: dict[str, np.ndarray], golden: dict[str, np.ndarray], prefix: str, tolerance: float = 1e-3
) -> None:
  """Compares gradients (n, ...) with golden[prefix + name], to `tolerance` of each field's maximum.

  Each splat's own gradient is held to 1 % of its own maximum as well (down to a tenth of the first
  tolerance), so that small ones cannot be wrong altogether. A field that the golden file leaves out
  has a gradient of exactly zero. At least one is there.
  """
  assert any(key.startswith(prefix) for key in golden), f"no golden gradients under {prefix}"
  for name, value in found.items():
    value = np.asarray(value, np.float64)
    expected = golden.get(prefix + name, np.zeros(value.shape))
    largest = np.abs(expected).max()
    error = np.abs(value - expected)
    assert error.max() <= tolerance * largest, (
      f"{prefix}{name}: off by {error.max():.3g} at {np.unravel_index(error.argmax(), error.shape)}"
      f", largest gradient {largest:.3g}"
    )
    rows = tuple(range(1, value.ndim))
    allowed = 0.01 * np.abs(expected).max(rows) + 0.1 * tolerance * largest
    worst = (error.max(rows) - allowed).argmax()
    assert error.max(rows)[worst] <= allowed[worst], (
      f"{prefix}{name}: splat {worst} has {value[worst]}, expected {expected[worst]}"
    )
