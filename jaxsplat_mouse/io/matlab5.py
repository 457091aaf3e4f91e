"""Reads MATLAB files of versions 5 to 7, and checks every length before it is used.

SciPy's reader is C code that trusts types and sizes: one changed byte in a calibration ends the
process with a segmentation fault (SciPy 1.17). Calibrations come from other people, so their few
kinds of values are read here instead; `matlab` describes the results.

The layout is that of MathWorks' "MAT-File Format": a file is a row of elements with a tag (type,
size). A matrix is an element of elements: flags, dimensions, name, and values or inner matrices.
"""

from __future__ import annotations

import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError

MAX_BYTES = 2 << 30  # of one variable, unpacked
LEFT_OUT = object()  # in place of a value of another class
HEADER_BYTES = 128
_MAX_DEPTH = 16
MATRIX, COMPRESSED = 14, 15  # types of elements
_INT32, _UINT32 = 5, 6
_NUMBERS = {
  1: "i1",
  2: "u1",
  3: "i2",
  4: "u2",
  5: "i4",
  6: "u4",
  7: "f4",
  9: "f8",
  12: "i8",
  13: "u8",
}
_TEXTS = {1: "latin-1", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT = 1, 2  # classes of matrices
_CHAR = 4
_CLASSES = {
  6: "f8",
  7: "f4",
  8: "i1",
  9: "u1",
  10: "i2",
  11: "u2",
  12: "i4",
  13: "u4",
  14: "i8",
  15: "u8",
}
_LOGICAL = 0x0200


class BrokenError(Exception):
  """The file contradicts its own tags."""


def without_left_out(entries: dict[str, Any]) -> dict[str, Any]:
  """Returns the entries whose values could be read."""
  return {key: value for key, value in entries.items() if value is not LEFT_OUT}


def read_matlab5(path: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
  """Reads those of the variables `names` that a file has; see `matlab.read_matlab`.

  Raises:
    InputError: there is no such file, or it is cut short or contradicts itself.
  """
  try:
    data = path.read_bytes()
    mark = data[126:HEADER_BYTES]
    if mark not in (b"IM", b"MI"):
      raise BrokenError("no MATLAB file of version 5 to 7.3")
    return _variables(ElementReader(data[HEADER_BYTES:], "<" if mark == b"IM" else ">"), names)
  except (BrokenError, OSError, zlib.error, UnicodeDecodeError, OverflowError) as error:
    problem = f"broken or cut short ({str(error) or type(error).__name__})"
    raise InputError(path, "", f"{problem}; expected a whole MATLAB file") from None


class ElementReader:
  """Reads elements one after the other."""

  def __init__(self, data: bytes | memoryview, order: str):
    self.data, self.order, self.at = memoryview(data), order, 0

  def take(self, size: int) -> memoryview:
    """Returns the next bytes."""
    if size > len(self.data) - self.at:
      raise BrokenError(f"{size - len(self.data) + self.at} bytes are missing")
    self.at += size
    return self.data[self.at - size : self.at]

  def element(self) -> tuple[int, ElementReader]:
    """Returns type and content of the next element."""
    kind, size = struct.unpack(self.order + "II", self.take(8))
    if kind >> 16:  # the short form: type, size and up to four bytes share the tag
      self.at -= 4
      kind, size = kind & 0xFFFF, kind >> 16
      if size > 4:
        raise BrokenError(f"a short element of {size} bytes")
      return kind, ElementReader(self.take(4)[:size], self.order)
    content = self.take(size)
    if kind != COMPRESSED:
      self.at = min(self.at + -size % 8, len(self.data))
    return kind, ElementReader(content, self.order)

  def numbers(self, kinds: Sequence[int] = tuple(_NUMBERS)) -> np.ndarray:
    """Returns the next element as a row of numbers."""
    kind, content = self.element()
    if kind not in kinds or kind not in _NUMBERS:
      raise BrokenError(f"an element of type {kind} where numbers belong")
    dtype = np.dtype(self.order + _NUMBERS[kind])
    if len(content.data) % dtype.itemsize:
      raise BrokenError(f"{len(content.data)} bytes of {dtype}")
    return np.frombuffer(content.data, dtype)

  def text(self, size: int | None = None) -> str | list[str]:
    """Returns the next element as text, or as names of `size` bytes each."""
    kind, content = self.element()
    if kind not in _TEXTS:
      raise BrokenError(f"an element of type {kind} where text belongs")
    code = _TEXTS[kind]
    if code in ("utf-16", "utf-32"):
      code += "-le" if self.order == "<" else "-be"
    raw = bytes(content.data)
    if size is None:
      return raw.decode(code)
    if size <= 0 or len(raw) % size:
      raise BrokenError(f"{len(raw)} bytes of names of {size}")
    return [raw[i : i + size].split(b"\0")[0].decode("utf-8") for i in range(0, len(raw), size)]


def _variables(file: ElementReader, names: Sequence[str]) -> dict[str, Any]:
  found = {}
  for matrix in _matrices(file):
    name, value = _matrix(matrix, 0, names)
    if name in names and value is not LEFT_OUT:
      found[name] = value
  return found


def _matrices(file: ElementReader) -> Iterator[ElementReader]:
  """Yields the variables of a file, unpacked."""
  while file.at < len(file.data):
    kind, content = file.element()
    if kind == COMPRESSED:
      unpacker = zlib.decompressobj()
      content = ElementReader(unpacker.decompress(content.data, MAX_BYTES), file.order)
      if not unpacker.eof:
        raise BrokenError(f"a variable that is cut or takes more than {MAX_BYTES >> 30} GiB")
      kind, content = content.element()
    if kind == MATRIX:
      yield content


def _matrix(
  content: ElementReader, depth: int, names: Sequence[str] | None = None
) -> tuple[str, Any]:
  """Returns name and value of a matrix; `LEFT_OUT` for a name that is not among `names`."""
  if depth > _MAX_DEPTH:
    raise BrokenError(f"nested more than {_MAX_DEPTH} deep")
  if len(content.data) == 0:  # an empty entry of a cell or struct
    return "", np.zeros((0, 0))
  flags = content.numbers((_UINT32,))
  if len(flags) != 2:
    raise BrokenError("a matrix without flags")
  kind = int(flags[0]) & 0xFF
  if kind not in (CELL, STRUCT, _CHAR, *_CLASSES):
    return "", LEFT_OUT
  shape = tuple(int(n) for n in content.numbers((_INT32,)))
  name = str(content.text())
  if len(shape) < 2 or len(shape) > 8 or min(shape) < 0:
    raise BrokenError(f"a matrix of the shape {shape}")
  if names is not None and name not in names:
    return name, LEFT_OUT
  if kind == CELL:
    return name, [_inner(content, depth) for _ in range(math.prod(shape))]
  if kind == STRUCT:
    return name, _struct(content, math.prod(shape), depth)
  if kind == _CHAR:
    return name, _text(content, shape)
  values = content.numbers()
  if len(values) != math.prod(shape):
    raise BrokenError(f"{len(values)} numbers for the shape {shape}")
  dtype = np.dtype(bool if int(flags[0]) & _LOGICAL else _CLASSES[kind])
  return name, values.astype(dtype).reshape(shape, order="F")


def _inner(content: ElementReader, depth: int) -> Any:
  """Returns the next entry of a cell or struct; `LEFT_OUT` for one of another class."""
  kind, matrix = content.element()
  if kind != MATRIX:
    raise BrokenError(f"an element of type {kind} where a matrix belongs")
  return _matrix(matrix, depth + 1)[1]


def _struct(content: ElementReader, count: int, depth: int) -> Any:
  """Returns a struct as a dict, a struct array as a list of dicts."""
  sizes = content.numbers((_INT32,))
  keys = content.text(int(sizes[0]) if len(sizes) == 1 else 0)
  if count and not keys:
    raise BrokenError("a struct without fields")
  entries = []
  for _ in range(count):
    entry = {key: _inner(content, depth) for key in keys}
    entries.append(without_left_out(entry))
  return entries[0] if count == 1 else entries


def _text(content: ElementReader, shape: tuple[int, ...]) -> Any:
  """Returns a row of characters as text, a matrix as a list of its rows."""
  letters = str(content.text())
  if len(letters) != math.prod(shape):
    raise BrokenError(f"{len(letters)} letters for the shape {shape}")
  if shape[0] <= 1:
    return letters
  return [letters[row :: shape[0]] for row in range(shape[0])]
