"""Reads MATLAB files into plain Python: dicts for structs, lists for cells, text, NumPy arrays.

`matlab5` reads versions 5 to 7; version 7.3 is HDF5 and read here with h5py. Numeric arrays keep
MATLAB's shape. A 1 x 1 struct becomes a dict, a struct array a list of dicts; cells and struct
arrays are flattened in MATLAB's (column-first) order. Values of other classes (tables, function
handles, objects, sparse matrices) are omitted.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import hdf5, matlab5
from jaxsplat_mouse.io.matlab5 import LEFT_OUT, without_left_out

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024)  # MATLAB writes a header of 512 bytes before it
_MAX_DEPTH = 16
_MAX_OBJECTS = 1_000_000


def read_matlab(path: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
  """Reads those of the variables `names` that a file has.

  Raises:
    InputError: there is no such file, it is not a MATLAB file, cut short or of absurd size, or the
      package that reads it is not installed.
  """
  try:
    with path.open("rb") as file:
      head = file.read(max(_HDF5_OFFSETS) + len(_HDF5_SIGNATURE))
  except OSError as error:
    raise InputError(path, "", f"cannot be read ({reason(error)}); expected a .mat file") from None
  if is_version73(head):
    with hdf5.open_hdf5(path) as file:
      return _Version73(path, file).read(names)
  return matlab5.read_matlab5(path, names)


def is_version73(data: bytes) -> bool:
  """Whether a file that begins with these bytes is one of version 7.3."""
  return any(data[at:].startswith(_HDF5_SIGNATURE) for at in _HDF5_OFFSETS)


class _Version73:
  """Reads an open file of version 7.3: classes are attributes, cells are arrays of references."""

  def __init__(self, path: pathlib.Path, file: Any):
    self._path, self._file, self._left = path, file, _MAX_OBJECTS

  def read(self, names: Sequence[str]) -> dict[str, Any]:
    """Reads those of the variables `names` that the file has."""
    found = [name for name in names if name in self._file]
    entries = {
      name: self._value(hdf5.get_child(self._path, name, self._file, name), name, 0)
      for name in found
    }
    return without_left_out(entries)

  def _value(self, node: Any, field: str, depth: int) -> Any:
    """Returns the value of a group or dataset, or `LEFT_OUT` for one of another class."""
    import h5py

    self._left -= 1
    if depth > _MAX_DEPTH or self._left < 0:
      problem = f"nested too deep or too often; expected at most {_MAX_DEPTH} levels"
      raise InputError(self._path, field, problem)
    if isinstance(node, h5py.Group):
      return self._struct(node, field, depth)
    if not isinstance(node, h5py.Dataset):
      return LEFT_OUT
    kind = _class_of(node)
    if node.attrs.get("MATLAB_empty", 0):
      return [] if kind == "cell" else "" if kind == "char" else self._empty(node, field)
    values = hdf5.read_array(self._path, field, node)
    if kind == "cell":
      return self._follow(values, field, depth)
    if kind == "char":
      if values.dtype.kind != "u" or values.dtype.itemsize != 2:
        raise InputError(self._path, field, f"text of type {values.dtype}; expected uint16")
      rows = np.atleast_2d(values.T)  # MATLAB stores columns first
      texts = [row.astype("<u2").tobytes().decode("utf-16-le", "replace") for row in rows]
      return texts[0] if len(texts) == 1 else texts
    if kind not in _NUMERIC or values.dtype.kind not in "biuf":
      return LEFT_OUT
    return values.T

  def _empty(self, node: Any, field: str) -> np.ndarray:
    """Returns an array without elements; the file stores its shape in place of its values."""
    shape = tuple(int(n) for n in np.ravel(hdf5.read_array(self._path, field, node))[:8])
    return np.zeros(shape if 0 in shape else (0, 0))

  def _struct(self, group: Any, field: str, depth: int) -> Any:
    """Returns a struct as a dict, a struct array as a list of dicts."""
    import h5py

    if _class_of(group) not in ("struct", "") or "MATLAB_sparse" in group.attrs:
      return LEFT_OUT
    entries: dict[str, Any] = {}
    arrays: dict[str, list[Any]] = {}
    for key in group:
      node, inner = hdf5.get_child(self._path, f"{field}.{key}", group, key), f"{field}.{key}"
      if (
        isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) and not _class_of(node)
      ):
        arrays[key] = self._follow(hdf5.read_array(self._path, inner, node), inner, depth)
      else:
        entries[key] = self._value(node, inner, depth + 1)
    if not arrays:
      return without_left_out(entries)
    columns = zip(*arrays.values(), strict=True)
    return [without_left_out(dict(zip(arrays, column, strict=True))) for column in columns]

  def _follow(self, references: np.ndarray, field: str, depth: int) -> list[Any]:
    """Returns the values that the references of a cell or struct array point to."""
    import h5py

    found = []
    # HDF5 stores MATLAB's axes in reverse, so C order here is MATLAB's own order.
    for i, reference in enumerate(np.ravel(references)):
      if not isinstance(reference, h5py.Reference) or not reference:
        raise InputError(self._path, f"{field}{{{i + 1}}}", "points nowhere; expected a value")
      found.append(self._value(self._file[reference], f"{field}{{{i + 1}}}", depth + 1))
    return found


_NUMERIC = {"double", "single", "logical"} | {
  f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)
}


def _class_of(node: Any) -> str:
  kind = node.attrs.get("MATLAB_class", b"")
  return kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
