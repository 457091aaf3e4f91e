"""A checkpoint of FaceLift's trainer becomes a folder of weights, without torch."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import torch_checkpoint
from jaxsplat_mouse.io.torch_checkpoint import StoredTensor
from jaxsplat_mouse.learn.gslrm import facelift_weights
from jaxsplat_mouse.learn.training.weights_folder import Weights

_REPOSITORY = "https://github.com/weijielyu/FaceLift"
LICENSE = "Adobe Research License (noncommercial research only)"
_NOTICE = """These weights were converted by jaxsplat_mouse from the checkpoint

    {file}
    SHA-256 {digest}

and are a derivative of it. FaceLift ({repository}) states:

    Model weights are licensed from Adobe Inc. under the Adobe Research License.

That licence permits use for noncommercial research purposes only. Weights and derivatives, networks
trained further from them included, may be passed on for that purpose only, together with the
licence. Where the checkpoint comes from elsewhere, its maker's licence holds in addition.
"""


def convert_checkpoint(path: pathlib.Path, head_width: int = 64) -> Weights:
  """Reads the network of a checkpoint that FaceLift's trainer wrote.

  Args:
    path: the checkpoint; its optimiser and its VGG network are not read.
    head_width: of an attention head. No shape tells it; that of FaceLift's networks is 64.

  Raises:
    InputError: the file is broken, or its weights are not those of one network; the message names
      weights that are missing, unknown or of another shape.
  """
  tensors = _model_tensors(path)
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  try:
    architecture = facelift_weights.guess_architecture(shapes, head_width)
  except ValueError as error:
    raise InputError(path, "model", str(error)) from None
  problems = facelift_weights.find_problems(shapes, architecture)
  if problems:
    raise InputError(path, "model", f"{problems}; expected the weights of FaceLift's GS-LRM")
  used = {k: v for k, v in tensors.items() if not k.startswith(facelift_weights.IGNORED)}
  weights = {name: _finite(path, name, tensor) for name, tensor in used.items()}
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return Weights(
    architecture=architecture,
    parameters=facelift_weights.from_facelift(weights, architecture),
    source={"converted_from": path.name, "sha256": digest, "repository": _REPOSITORY},
    license=LICENSE,
    notice=_NOTICE.format(file=path.name, digest=digest, repository=_REPOSITORY),
  )


def _model_tensors(path: pathlib.Path) -> dict[str, StoredTensor]:
  """The tensors of `model`, or of the file where it holds nothing else."""
  value: Any = torch_checkpoint.load_checkpoint(path)
  model = value.get("model", value) if isinstance(value, dict) else None
  if not isinstance(model, dict) or not model:
    raise InputError(path, "model", "missing; expected the weights of a model by name")
  for name, tensor in model.items():
    if not isinstance(name, str) or not isinstance(tensor, StoredTensor):
      problem = f"{type(tensor).__name__}; expected tensors only"
      raise InputError(path, f"model.{name}", problem)
  return model


def _finite(path: pathlib.Path, name: str, tensor: StoredTensor) -> np.ndarray:
  values = tensor.read()
  if values.dtype.kind != "f" or not np.isfinite(values).all():
    raise InputError(path, f"model.{name}", "expected finite floating-point numbers")
  return values
