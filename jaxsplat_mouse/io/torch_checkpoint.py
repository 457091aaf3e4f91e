"""Reads what `torch.save` writes, without torch: the values of the file, and tensors on demand.

The file is a zip archive, uncompressed, whose one folder has any name:

    NAME/data.pkl      a pickle; every tensor in it names a storage, an offset, a shape and strides
    NAME/data/KEY      the bytes of a storage
    NAME/byteorder     `little`, or `big`

The pickle is not run (`restricted_pickle`). Nothing of a storage is read before its tensor is asked
for, so that the optimiser's moments, twice the size of the weights, cost nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import restricted_pickle
from jaxsplat_mouse.io.checks import one_line
from jaxsplat_mouse.io.restricted_pickle import Global, RefusedError

_EXPECTED = "expected a file of torch.save, version 1.6 or newer"
_MAX_PICKLE_BYTES = 256 << 20
_ORDERED, _TENSOR, _PARAMETER = "ordered dict", "tensor", "parameter"
_ALLOWED = {
  "collections.OrderedDict": _ORDERED,
  "torch._utils._rebuild_tensor_v2": _TENSOR,
  "torch._utils._rebuild_parameter": _PARAMETER,
}
# bfloat16 is the upper half of a float32.
_DTYPES = {
  "FloatStorage": "f4",
  "HalfStorage": "f2",
  "BFloat16Storage": "bfloat16",
  "DoubleStorage": "f8",
  "LongStorage": "i8",
  "IntStorage": "i4",
  "ShortStorage": "i2",
  "CharStorage": "i1",
  "ByteStorage": "u1",
  "BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class _Storage:
  key: str
  dtype: str
  count: int


@dataclasses.dataclass(frozen=True)
class _View:
  """A tensor as the pickle describes it."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
  """A tensor that is still on the disk.

  Attributes:
    path: the checkpoint.
    entry: its storage in the archive.
    dtype: NumPy's name of its type, or `bfloat16`.
    count: numbers in the storage.
    offset: of the first number.
    shape: of the tensor.
    strides: of its axes, in numbers.
  """

  path: pathlib.Path
  entry: str
  dtype: str
  count: int
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def read(self) -> np.ndarray:
    """Reads the tensor; bfloat16 becomes float32.

    Raises:
      InputError: its storage is missing, damaged or shorter than the pickle says.
    """
    item = np.dtype("u2" if self.dtype == "bfloat16" else self.dtype)
    try:
      with zipfile.ZipFile(self.path) as archive:
        data = _read_entry(archive, self.path, self.entry, self.count * item.itemsize)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
      raise InputError(self.path, self.entry, f"cannot be read ({reason(error)})") from None
    if len(data) != self.count * item.itemsize:
      problem = f"{len(data)} bytes; expected {self.count} numbers of {item.itemsize}"
      raise InputError(self.path, self.entry, problem)
    numbers = np.frombuffer(data, item.newbyteorder("<"))[self.offset :]
    steps = [step * item.itemsize for step in self.strides]
    view = np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False)
    if self.dtype == "bfloat16":
      return (view.astype(np.uint32) << 16).view(np.float32)
    return np.array(view, item)


def load_checkpoint(path: pathlib.Path) -> Any:
  """Reads the values of a checkpoint.

  Returns:
    Numbers, text, lists, tuples and dicts, nested, with `StoredTensor` for tensors.

  Raises:
    InputError: there is no such file, it is none of torch's, or holds objects of other kinds.
  """
  if not path.is_file():
    raise InputError(path, "", f"no such file; {_EXPECTED}")
  try:
    with zipfile.ZipFile(path) as archive:
      folder = _find_folder(path, archive)
      order = f"{folder}/byteorder"
      if order in archive.namelist() and archive.read(order).strip() != b"little":
        raise InputError(path, order, "expected little: other byte orders are not read")
      data = _read_entry(archive, path, f"{folder}/data.pkl", _MAX_PICKLE_BYTES)
  except (OSError, zipfile.BadZipFile) as error:
    raise InputError(path, "", f"cannot be read ({reason(error)}); {_EXPECTED}") from None
  value = restricted_pickle.build_value(path, data, _TorchMachine())
  return _with_paths(value, path, folder)


def _find_folder(path: pathlib.Path, archive: zipfile.ZipFile) -> str:
  """The one folder of the archive that holds the pickle."""
  found = [n.removesuffix("/data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
  if len(found) != 1:
    raise InputError(path, "", f"{len(found)} files data.pkl in it; {_EXPECTED}")
  return found[0]


def _read_entry(archive: zipfile.ZipFile, path: pathlib.Path, entry: str, largest: int) -> bytes:
  """Bytes of an entry; torch compresses none, so none expands beyond the file's own size."""
  info = archive.getinfo(entry)
  if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
    problem = f"compressed, or larger than {largest} bytes; {_EXPECTED}"
    raise InputError(path, entry, problem)
  return archive.read(info)


class _TorchMachine(restricted_pickle.PickleMachine):
  """Knows tensors, their storages and ordered dicts beside plain values."""

  expected = "expected tensors, numbers, text, lists and dicts only"

  def find_global(self, name: str) -> Any:
    """Returns a known function, or a storage's type."""
    storage = re.fullmatch(r"torch\.(\w+Storage)", name)
    if storage and storage[1] in _DTYPES:
      return Global(_DTYPES[storage[1]])
    return Global(_ALLOWED[name]) if name in _ALLOWED else super().find_global(name)

  def find_persistent(self, identifier: Any) -> Any:
    """Returns a storage."""
    match identifier:
      case ("storage", Global(kind=dtype), str(key), str(), int(count)) if (
        dtype in _DTYPES.values() and re.fullmatch(r"\d{1,9}", key) and count >= 0
      ):
        return _Storage(key, dtype, count)
    raise RefusedError(f"found the storage {one_line(identifier)}")

  def call(self, function: Any, arguments: Any) -> Any:
    """Returns an empty dict or a tensor's description."""
    match function, arguments:
      case Global(kind="ordered dict"), ():
        return {}
      case Global(kind="tensor"), (
        _Storage() as storage,
        int(start),
        tuple(shape),
        tuple(steps),
        *_,
      ):
        return _checked_view(storage, start, shape, steps)
      case Global(kind="parameter"), (_View() as view, *_):
        return view
    return super().call(function, arguments)

  def set_state(self, target: Any, state: Any) -> None:
    """Ignores attributes of dicts, as the `_metadata` of a model's weights."""
    if type(target) is not dict:
      super().set_state(target, state)


def _checked_view(
  storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> _View:
  """A tensor's description, where it lies inside its storage."""
  numbers = (offset, *shape, *strides)
  if len(shape) != len(strides) or len(shape) > 8:
    raise RefusedError(f"found a tensor of shape {one_line(shape)}, strides {one_line(strides)}")
  if not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
    raise RefusedError(f"found a tensor of shape {one_line(shape)}, strides {one_line(strides)}")
  last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
  if 0 not in shape and last >= storage.count:
    raise RefusedError(f"found a tensor of shape {one_line(shape)} that leaves its storage")
  return _View(storage, offset, shape, strides)


def _with_paths(value: Any, path: pathlib.Path, folder: str) -> Any:
  """Replaces descriptions of tensors by tensors on the disk."""
  if isinstance(value, (list, tuple)):
    return type(value)([_with_paths(v, path, folder) for v in value])
  if isinstance(value, dict):
    return {k: _with_paths(v, path, folder) for k, v in value.items()}
  if not isinstance(value, _View):
    return value
  return StoredTensor(
    path=path,
    entry=f"{folder}/data/{value.storage.key}",
    dtype=value.storage.dtype,
    count=value.storage.count,
    offset=value.offset,
    shape=value.shape,
    strides=value.strides,
  )
