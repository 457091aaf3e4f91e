"""Replaces a few arrays of a MATLAB file; every other value stays as the file holds it.

A calibration file has more in it than cameras: labels, frame numbers, tables that only MATLAB
reads. Writing the file anew would lose what is not understood, so the arrays that change are
exchanged in place. In versions 5 to 7 the variables around them are copied byte for byte; version
7.3 is HDF5, whose arrays are overwritten.
"""

from __future__ import annotations

import io
import math
import pathlib
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io.matlab import is_version73
from jaxsplat_mouse.io.matlab5 import (
  CELL,
  COMPRESSED,
  HEADER_BYTES,
  MATRIX,
  STRUCT,
  BrokenError,
  ElementReader,
)

Place = tuple[
  str | int, ...
]  # names of variables and fields, numbers of entries: ("params", 2, "r")
_DOUBLE, _DOUBLE_NUMBERS = 6, 9  # class of a matrix, type of an element


def replace_arrays(path: pathlib.Path, changes: Mapping[Place, np.ndarray]) -> bytes:
  """Returns the content of a MATLAB file with some of its arrays replaced.

  Args:
    path: the file, of any version that `matlab` reads.
    changes: new values by place; each gets the shape that the file has there.

  Raises:
    InputError: the file cannot be read, or has no array of that size at a place.
  """
  try:
    data = path.read_bytes()
    if is_version73(data):
      return _replace73(path, data, changes)
    return _replace5(path, data, changes)
  except (BrokenError, OSError, zlib.error, UnicodeDecodeError) as error:
    problem = f"cannot be edited ({reason(error)}); expected a whole MATLAB file"
    raise InputError(path, "", problem) from None


def _missing(path: pathlib.Path, place: Place) -> InputError:
  return InputError(path, _field(place), "no such array; expected the one that was read before")


def _field(place: Place) -> str:
  """Writes a place as MATLAB does."""
  return "".join(f"{{{p + 1}}}" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")


# ------------------------------------------------------------------------------ versions 5 to 7


def _replace5(path: pathlib.Path, data: bytes, changes: Mapping[Place, np.ndarray]) -> bytes:
  order = "<" if data[126:HEADER_BYTES] == b"IM" else ">"
  editor = _Editor(path, order, changes)
  parts = [data[:HEADER_BYTES]]
  file = ElementReader(data[HEADER_BYTES:], order)
  while file.at < len(file.data):
    start = file.at
    kind, content = file.element()
    raw = bytes(file.data[start : file.at])
    packed = kind == COMPRESSED
    if packed:
      kind, content = ElementReader(zlib.decompress(content.data), order).element()
    if kind == MATRIX and editor.concerns((editor.name(content),)):
      content.at = 0
      changed = editor.matrix(content, ())
      raw = editor.element(COMPRESSED, zlib.compress(changed), pads=False) if packed else changed
    parts.append(raw)
  for place in changes:
    if place not in editor.done:
      raise _missing(path, place)
  return b"".join(parts)


class _Editor:
  """Copies matrices with changes."""

  def __init__(self, path: pathlib.Path, order: str, changes: Mapping[Place, np.ndarray]):
    self._path, self._order, self._changes = path, order, changes
    self.done: set[Place] = set()

  def concerns(self, place: Place) -> bool:
    """Whether there is a change at a place or inside it."""
    return any(wanted[: len(place)] == place for wanted in self._changes)

  def element(self, kind: int, content: bytes, pads: bool = True) -> bytes:
    """Returns an element of a type."""
    padding = bytes(-len(content) % 8) if pads else b""
    return struct.pack(self._order + "II", kind, len(content)) + content + padding

  def name(self, content: ElementReader) -> str:
    """Returns the name of a matrix; "" for one of a class that only MATLAB reads."""
    try:
      content.numbers()
      content.numbers()
      return str(content.text())
    except BrokenError:
      return ""

  def matrix(self, content: ElementReader, place: Place) -> bytes:
    """Returns the element of a matrix with its changes; a variable adds its name to `place`."""
    start = content.at
    flags = content.numbers()
    after_flags = content.at
    shape = tuple(int(n) for n in content.numbers())
    name = str(content.text())
    head = bytes(content.data[after_flags : content.at])
    place = place or (name,)
    kind = int(flags[0]) & 0xFF
    raw_flags = bytes(content.data[start:after_flags])
    if place in self._changes:
      return self._array(flags, shape, head, place)
    if kind not in (CELL, STRUCT):
      raise _missing(self._path, next(p for p in self._changes if p[: len(place)] == place))
    parts = [raw_flags, head]
    for inner in self._entries(content, kind, shape, parts):
      start = content.at
      _, child = content.element()
      raw = bytes(content.data[start : content.at])
      changed = len(child.data) > 0 and self.concerns((*place, *inner))
      parts.append(self.matrix(child, (*place, *inner)) if changed else raw)
    return self.element(MATRIX, b"".join(parts))

  def _entries(
    self, content: ElementReader, kind: int, shape: tuple[int, ...], parts: list[bytes]
  ) -> list[Place]:
    """Returns the places of a cell's or struct's entries; copies a struct's names to `parts`."""
    count = math.prod(shape)
    if kind == CELL:
      return [(i,) for i in range(count)]
    start = content.at
    keys = content.text(int(content.numbers()[0]))
    parts.append(bytes(content.data[start : content.at]))
    if count == 1:
      return [(key,) for key in keys]
    return [(i, key) for i in range(count) for key in keys]

  def _array(self, flags: np.ndarray, shape: tuple[int, ...], head: bytes, place: Place) -> bytes:
    """Returns the element of an array of doubles with the new values."""
    values = np.asarray(self._changes[place], np.float64)
    if values.size != math.prod(shape):
      problem = f"the shape {shape}; expected room for {values.size} numbers"
      raise InputError(self._path, _field(place), problem)
    self.done.add(place)
    numbers = values.reshape(shape).ravel(order="F").astype(self._order + "f8").tobytes()
    kept = struct.pack(self._order + "II", _DOUBLE, int(flags[1]))
    return self.element(
      MATRIX, self.element(6, kept) + head + self.element(_DOUBLE_NUMBERS, numbers)
    )


# ---------------------------------------------------------------------------------- version 7.3


def _replace73(path: pathlib.Path, data: bytes, changes: Mapping[Place, np.ndarray]) -> bytes:
  import h5py

  buffer = io.BytesIO(data)
  with h5py.File(buffer, "r+") as file:
    for place, values in changes.items():
      node = _find73(file, place)
      if not isinstance(node, h5py.Dataset) or node.size != np.size(values):
        raise _missing(path, place)
      if node.dtype != np.float64:
        problem = f"numbers of type {node.dtype}; expected double, to hold refined cameras"
        raise InputError(path, _field(place), problem)
      node[...] = np.asarray(values, np.float64).reshape(node.shape[::-1]).T
  return buffer.getvalue()


def _find73(file: Any, place: Place) -> Any:
  """Returns the dataset at a place; None where there is none."""
  import h5py

  node: Any = file
  row: int | None = None  # of a struct array, whose fields are arrays of references
  for part in place:
    if isinstance(part, int):
      if isinstance(node, h5py.Dataset):
        node = file[np.ravel(node[()])[part]]
      else:
        row = part
      continue
    if not isinstance(node, h5py.Group) or part not in node:
      return None
    node = node[part]
    if row is not None:
      node, row = file[np.ravel(node[()])[row]], None
  return node
