"""Weights of a network in a folder: what inference needs, and no more.

    model.json          architecture, where the weights come from, their licence, what is where
    weights_000.npz     parameters by their path, as `blocks/project/kernel`
    NOTICE.txt          where the licence asks for one

Pieces are at most `PIECE_BYTES` large, unless one parameter alone is larger, so that small networks
can be kept under version control.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import atomic, checks
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters
from jaxsplat_mouse.version import __version__

MODEL_FILE, NOTICE_FILE = "model.json", "NOTICE.txt"
PIECE_BYTES = 15 << 20
STORED_DTYPES = ("float32", "float16")
_FORMAT = 1
_EXPECTED = "expected a folder of weights with model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """A network and where it comes from.

  Attributes:
    architecture: its shape.
    parameters: dicts of float32 arrays.
    source: how the weights were made, JSON values.
    license: of the weights; empty where nothing is stated.
    notice: text that must travel with them; empty for none.
  """

  architecture: Architecture
  parameters: Any
  source: Mapping[str, Any]
  license: str = ""
  notice: str = ""


def save_weights(
  folder: pathlib.Path,
  weights: Weights,
  dtype: str = "float32",
  piece_bytes: int = PIECE_BYTES,
  *,
  overwrite: bool = False,
) -> None:
  """Writes a folder; it appears whole or not at all.

  Args:
    folder: where.
    weights: what.
    dtype: in which numbers are stored, one of `STORED_DTYPES`.
    piece_bytes: of a file, at most.
    overwrite: whether to replace a folder that exists.

  Raises:
    InputError: the folder exists, cannot be written, or numbers do not fit `dtype`.
  """
  arrays = {
    name: _stored(folder, name, value, dtype)
    for name, value in _flatten(weights.parameters).items()
  }
  pieces = _pieces({name: array.nbytes for name, array in arrays.items()}, piece_bytes)
  record = {
    "format": _FORMAT,
    "version": __version__,
    "architecture": dataclasses.asdict(weights.architecture),
    "source": dict(weights.source),
    "license": weights.license,
    "files": pieces,
  }
  try:
    with atomic.new_folder(folder, overwrite=overwrite) as temporary:
      for file, names in pieces.items():
        content: dict[str, Any] = {name: arrays[name] for name in names}
        np.savez(temporary / file, **content)
      (temporary / MODEL_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
      if weights.notice:
        (temporary / NOTICE_FILE).write_text(weights.notice, encoding="utf-8")
  except FileExistsError:
    raise InputError(folder, "", "exists already; expected the name of a new folder") from None
  except OSError as error:
    raise InputError(folder, "", f"cannot be written ({reason(error)})") from None


def load_weights(folder: pathlib.Path) -> Weights:
  """Reads what `save_weights` wrote.

  Raises:
    InputError: something is missing, damaged, or of another network.
  """
  file = folder / MODEL_FILE
  if not file.is_file():
    raise InputError(folder, "", f"no {MODEL_FILE} in it; {_EXPECTED}")
  record = checks.read_json(file)
  if record.get("format") != _FORMAT:
    problem = f"{checks.one_line(record.get('format'))}; expected {_FORMAT}: another version's file"
    raise InputError(file, "format", problem)
  architecture = _read_architecture(file, record.get("architecture"))
  pieces = record.get("files")
  if not isinstance(pieces, dict) or not pieces:
    raise InputError(file, "files", "missing; expected the names of the files of weights")
  arrays: dict[str, np.ndarray] = {}
  for name in pieces:
    arrays |= _read_piece(checks.path_inside(folder, name, file, "files"))
  notice = folder / NOTICE_FILE
  return Weights(
    architecture=architecture,
    parameters=_fit(folder, arrays, architecture),
    source=record.get("source", {}),
    license=str(record.get("license", "")),
    notice=notice.read_text(encoding="utf-8") if notice.is_file() else "",
  )


def _stored(folder: pathlib.Path, name: str, value: Any, dtype: str) -> np.ndarray:
  """A parameter as it is written."""
  with np.errstate(over="ignore"):
    array = np.asarray(value).astype(dtype)
  if not np.isfinite(array).all():
    problem = f"not finite, or too large for {dtype}; expected finite numbers"
    raise InputError(folder, name, problem)
  return array


def _flatten(parameters: Any) -> dict[str, Any]:
  """Leaves by their path, joined with slashes."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(parameters)
  return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _pieces(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
  """Names of parameters by file: files are filled in order."""
  groups: list[list[str]] = []
  filled = limit + 1
  for name, size in sizes.items():
    if filled + size > limit:
      groups.append([])
      filled = 0
    groups[-1].append(name)
    filled += size
  return {f"weights_{i:03}.npz": names for i, names in enumerate(groups)}


def _read_architecture(file: pathlib.Path, value: Any) -> Architecture:
  fields = {field.name for field in dataclasses.fields(Architecture)}
  if not isinstance(value, dict) or set(value) != fields:
    expected = ", ".join(sorted(fields))
    raise InputError(file, "architecture", f"{checks.one_line(value)}; expected {expected}")
  try:
    return Architecture(**value)
  except (TypeError, ValueError) as error:
    raise InputError(file, "architecture", reason(error)) from None


def _read_piece(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    problem = f"cannot be read ({reason(error)}); expected arrays of weights"
    raise InputError(path, "", problem) from None


def _fit(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], architecture: Architecture) -> Any:
  """The parameters of a network, float32.

  Raises:
    InputError: an array is missing, left over, or has another shape.
  """
  template = jax.eval_shape(lambda: init_parameters(architecture, jax.random.key(0)))
  wanted = _flatten(template)
  for name in [*wanted, *arrays]:
    if name not in arrays or name not in wanted:
      kind = "missing" if name not in arrays else "not of this network"
      raise InputError(folder, name, f"{kind}; expected the weights that model.json describes")
    if arrays[name].shape != wanted[name].shape or arrays[name].dtype.kind != "f":
      problem = f"{arrays[name].dtype} {arrays[name].shape}; expected {wanted[name].shape}"
      raise InputError(folder, name, problem)
  _, structure = jax.tree.flatten(template)
  return jax.tree.unflatten(structure, [arrays[name].astype(np.float32) for name in wanted])
