"""FaceLift's names of a GS-LRM's weights, and the parameters here that they become.

Its linear layers are (out, in) as torch has them, here (in, out); its blocks are apart, here they
are stacked. The rest is the same numbers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.learn.gslrm.architecture import SIZES, Architecture

IGNORED = "loss_calculator."  # VGG19, with which it trains
_CHANNELS = 9
_SHOWN = 4  # names of each kind in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Weight:
  """A parameter here and its name there.

  Attributes:
    place: keys that lead to the parameter.
    name: there; `{i}` is the number of a block.
    shape: there.
    turned: whether it is a matrix, (out, in) there.
  """

  place: tuple[str, ...]
  name: str
  shape: tuple[int, ...]
  turned: bool = False

  @property
  def stacked(self) -> bool:
    return "{i}" in self.name


def _weights(shape: Architecture) -> list[_Weight]:
  """All weights of a network."""
  d, block = shape.width, "transformer_layers.{i}."

  def norm(place: tuple[str, ...], name: str) -> _Weight:
    return _Weight(place=(*place, "scale"), name=f"{name}.weight", shape=(d,))

  def matrix(place: tuple[str, ...], name: str, out: int, into: int) -> _Weight:
    return _Weight(place=(*place, "kernel"), name=f"{name}.weight", shape=(out, into), turned=True)

  pixels = shape.patch**2
  return [
    matrix(("embed",), "patch_embedder.1", d, pixels * _CHANNELS),
    _Weight(place=("registers",), name="gaussian_position_embeddings", shape=(shape.registers, d)),
    norm(("input_norm",), "input_layer_norm"),
    norm(("blocks", "attention_norm"), f"{block}norm1"),
    matrix(("blocks", "query_key_value"), f"{block}attn.to_qkv", 3 * d, d),
    matrix(("blocks", "project"), f"{block}attn.fc", d, d),
    norm(("blocks", "perceptron_norm"), f"{block}norm2"),
    matrix(("blocks", "expand"), f"{block}mlp.mlp.0", 4 * d, d),
    matrix(("blocks", "contract"), f"{block}mlp.mlp.2", d, 4 * d),
    norm(("register_norm",), "gaussian_upsampler.layernorm"),
    matrix(("register_head",), "gaussian_upsampler.linear", shape.outputs, d),
    norm(("output_norm",), "pixel_gaussian_decoder.0"),
    matrix(("head",), "pixel_gaussian_decoder.1", pixels * shape.outputs, d),
  ]


def guess_architecture(shapes: Mapping[str, tuple[int, ...]], head_width: int) -> Architecture:
  """Returns the network that weights seem to belong to.

  Args:
    shapes: of all weights by FaceLift's names. What they do not tell is as in its own network.
    head_width: of an attention head, which no shape tells.

  Raises:
    ValueError: no network has such a width.
  """
  guess = SIZES["facelift"]
  registers, width = _pair(shapes.get("gaussian_position_embeddings"), guess.registers, guess.width)
  _, numbers = _pair(shapes.get("patch_embedder.1.weight"), 0, guess.patch**2 * _CHANNELS)
  blocks = [re.match(r"transformer_layers\.(\d{1,4})\.", name) for name in shapes]
  depth = max((int(match[1]) + 1 for match in blocks if match), default=guess.depth)
  patch = max(round((numbers / _CHANNELS) ** 0.5), 1)
  return dataclasses.replace(
    guess,
    image_size=guess.image_size // patch * patch,
    patch=patch,
    width=width,
    depth=depth,
    head_width=head_width,
    registers=registers,
  )


def _pair(shape: tuple[int, ...] | None, first: int, second: int) -> tuple[int, int]:
  """A shape of two sides, or the given ones where there is none."""
  return (shape[0], shape[1]) if shape is not None and len(shape) == 2 else (first, second)


def find_problems(shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> str:
  """Names weights that are missing, unknown or of another shape.

  Args:
    shapes: of all weights by FaceLift's names.
    architecture: the network that they should belong to.

  Returns:
    one line, empty where nothing is wrong.
  """
  wanted = {
    weight.name.format(i=i): weight.shape
    for weight in _weights(architecture)
    for i in range(architecture.depth if weight.stacked else 1)
  }
  given = {name: shape for name, shape in shapes.items() if not name.startswith(IGNORED)}
  misshapen = [
    f"{name} {given[name]} in place of {shape}"
    for name, shape in wanted.items()
    if name in given and given[name] != shape
  ]
  kinds = {
    "missing": [name for name in wanted if name not in given],
    "unknown": [name for name in given if name not in wanted],
    "misshapen": misshapen,
  }
  return "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: list[str]) -> str:
  """The first names, and how many more there are."""
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def from_facelift(weights: Mapping[str, np.ndarray], architecture: Architecture) -> dict[str, Any]:
  """Returns the parameters of a network with FaceLift's weights, float32.

  Args:
    weights: by FaceLift's names, in which `find_problems` finds none.
    architecture: the network that they belong to.
  """
  parameters: dict[str, Any] = {}
  for weight in _weights(architecture):
    numbers = [
      np.asarray(weights[weight.name.format(i=i)], np.float32)
      for i in range(architecture.depth if weight.stacked else 1)
    ]
    value = np.stack(numbers) if weight.stacked else numbers[0]
    value = np.ascontiguousarray(np.swapaxes(value, -1, -2)) if weight.turned else value
    *folders, last = weight.place
    inner = parameters
    for folder in folders:
      inner = inner.setdefault(folder, {})
    inner[last] = value
  return parameters
