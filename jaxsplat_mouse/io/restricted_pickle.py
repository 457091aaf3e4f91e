"""Reads untrusted pickles: numbers, text, lists, tuples, dicts and numeric NumPy arrays.

A pickle is a program that may call anything. This module never runs one: it walks the opcodes and
builds the few kinds of values that a calibration needs, so that nothing a pickle names is imported
or called, not even NumPy's own unpickling. Everything else is refused, and the message names it.
Lengths that a file declares are compared with the bytes that it has before memory is allocated, and
values that multiply through references are counted before they are built.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import pickletools
import re
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io.checks import one_line

_MAX_BYTES = 1 << 30
_MAX_OPCODES = 5_000_000
_MAX_VALUES = 5_000_000  # after references are followed
_MAX_DEPTH = 32
_MARK = object()
_CORE = r"numpy\.(_core|core)\."
_ALLOWED = {
  "ndarray": r"numpy\.ndarray",
  "dtype": r"numpy\.dtype",
  "reconstruct": _CORE + r"multiarray\._reconstruct",
  "scalar": _CORE + r"multiarray\.scalar",
  "frombuffer": _CORE + r"numeric\._frombuffer",
  "encode": r"_codecs\.encode",  # protocols up to 2 write bytes with it
}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SIMPLE = re.compile(
  "INT|BININT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?STRING|UNICODE|(SHORT_)?BINUNICODE8?|"
  "(SHORT_)?BINBYTES8?|BYTEARRAY8"
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_pickle(path: pathlib.Path) -> Any:
  """Reads the value of a pickle.

  Returns:
    Numbers, text, bytes, None, lists, tuples, dicts, and arrays, nested.

  Raises:
    InputError: there is no such file, or it is not a pickle, cut short, too large, or contains
      anything else.
  """
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise InputError(path, "", f"larger than {_MAX_BYTES >> 30} GiB; expected a calibration")
    data = path.read_bytes()
  except OSError as error:
    raise InputError(path, "", f"cannot be read ({reason(error)}); expected a pickle") from None
  return build_value(path, data, PickleMachine())


def build_value(path: pathlib.Path, data: bytes, machine: PickleMachine) -> Any:
  """Returns the value of a pickle.

  Args:
    path: its file, for messages.
    data: its bytes.
    machine: a new one, which knows what may stand in the pickle.

  Raises:
    InputError: it is not a pickle, cut short, or contains what the machine does not know.
  """
  try:
    return _resolve(machine.run(data))
  except RefusedError as error:
    raise InputError(path, "", f"{error}; {machine.expected}") from None
  except Exception as error:  # opcodes without their operands raise many types
    problem = f"broken or cut short ({reason(error)}); expected a whole pickle"
    raise InputError(path, "", problem) from None


class RefusedError(Exception):
  """The pickle contains something that the machine does not build."""


@dataclasses.dataclass(frozen=True)
class Global:
  """A name that the pickle calls, by the kind that the machine knows it as."""

  kind: str


@dataclasses.dataclass
class _Dtype:
  """A dtype; the pickle sets its byte order later, with BUILD."""

  code: str
  order: str = "="

  def numpy(self) -> np.dtype:
    return np.dtype((self.order if self.order in "<>" else "=") + self.code)


@dataclasses.dataclass
class _Array:
  """An array; the pickle sets its values later, with BUILD."""

  value: np.ndarray | None = None


class PickleMachine:
  """The stack and the memo of a pickle.

  A subclass that overrides `find_global`, `call`, `set_state` or `find_persistent` knows more.

  Attributes:
    expected: what a refusal says that there should be.
  """

  expected = "expected numbers, text, lists, dicts and numeric NumPy arrays only"

  def __init__(self) -> None:
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}

  def run(self, data: bytes) -> Any:
    """Runs the opcodes; returns the value that is on the stack at the end."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
      if count > _MAX_OPCODES:
        raise RefusedError(f"more than {_MAX_OPCODES} steps")
      if opcode.name == "STOP":
        break
      self._step(opcode.name, argument)
    value = self._stack.pop()
    if self._stack:
      raise ValueError("values left over")
    return value

  def _step(self, name: str, argument: Any) -> None:
    stack = self._stack
    if _SIMPLE.fullmatch(name):
      if isinstance(argument, int) and abs(argument) >> 63:
        raise RefusedError("found a number of more than 64 bits")
      stack.append(argument)
    elif name in _VALUES:
      stack.append(_VALUES[name])
    elif name in _TUPLES:
      stack.append(tuple(self._popped(_TUPLES[name])))
    elif name in ("PROTO", "FRAME"):
      pass
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
      self._memo[argument] = stack[-1]
    elif name == "MEMOIZE":
      self._memo[len(self._memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
      stack.append(self._memo[argument])
    elif name == "MARK":
      stack.append(_MARK)
    else:
      self._build(name, argument)

  def _build(self, name: str, argument: Any) -> None:
    """Runs the opcodes that build containers and objects; refuses unknown ones."""
    stack = self._stack
    if name in ("EMPTY_LIST", "EMPTY_DICT"):
      stack.append([] if name == "EMPTY_LIST" else {})
    elif name in ("LIST", "TUPLE", "DICT"):
      values = self._marked()
      kinds = {"LIST": values, "TUPLE": tuple(values)}
      stack.append(kinds[name] if name in kinds else _pairs(values))
    elif name in ("APPEND", "APPENDS"):
      values = self._popped(1) if name == "APPEND" else self._marked()
      _target(stack, list).extend(values)
    elif name in ("SETITEM", "SETITEMS"):
      values = self._popped(2) if name == "SETITEM" else self._marked()
      _target(stack, dict).update(_pairs(values))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
      parts = argument.split(" ", 1) if name == "GLOBAL" else self._popped(2)
      stack.append(self.find_global(f"{parts[0]}.{parts[1]}"))
    elif name == "REDUCE":
      function, arguments = self._popped(2)
      stack.append(self.call(function, arguments))
    elif name == "BUILD":
      state = stack.pop()
      self.set_state(stack[-1], state)
    elif name == "BINPERSID":
      stack.append(self.find_persistent(stack.pop()))
    else:
      raise RefusedError(f"found the pickle instruction {name}")

  def find_global(self, name: str) -> Any:
    """Returns what stands for a dotted name that the pickle imports.

    Raises:
      RefusedError: the machine does not know it.
    """
    for kind, pattern in _ALLOWED.items():
      if re.fullmatch(pattern, name):
        return Global(kind)
    raise RefusedError(f"found {one_line(name)}, a thing to import")

  def call(self, function: Any, arguments: Any) -> Any:
    """Returns the result of a call of a `Global`, without calling it.

    Raises:
      RefusedError: the machine does not know this call.
    """
    return _call(function, arguments)

  def set_state(self, target: Any, state: Any) -> None:
    """Completes an object that `call` returned.

    Raises:
      RefusedError: the machine does not know this state.
    """
    _set_state(target, state)

  def find_persistent(self, identifier: Any) -> Any:
    """Returns what stands for data outside of the pickle.

    Raises:
      RefusedError: the machine does not know it.
    """
    raise RefusedError("found the pickle instruction BINPERSID")

  def _popped(self, count: int) -> list[Any]:
    if count == 0:
      return []
    values = self._stack[-count:]
    if len(values) < count or any(value is _MARK for value in values):
      raise ValueError("too few operands")
    del self._stack[-count:]
    return values

  def _marked(self) -> list[Any]:
    """Removes the values above the last mark, and the mark; returns the values."""
    values = []
    while (value := self._stack.pop()) is not _MARK:
      values.append(value)
    return values[::-1]


def _target(stack: list[Any], kind: type) -> Any:
  if type(stack[-1]) is not kind:
    raise ValueError(f"expected a {kind.__name__}, found {type(stack[-1]).__name__}")
  return stack[-1]


def _pairs(values: list[Any]) -> dict[Any, Any]:
  keys = values[::2]
  bad = next((k for k in keys if not isinstance(k, (str, int, float, bytes, type(None)))), None)
  if bad is not None or len(values) % 2:
    raise RefusedError(f"found a dict with the key {one_line(bad)}")
  return dict(zip(keys, values[1::2], strict=True))


def _call(function: Any, arguments: Any) -> Any:
  """Returns the result of a call of one of `_ALLOWED`, without calling it."""
  kind = function.kind if isinstance(function, Global) else ""
  match kind, arguments:
    case "reconstruct", (Global(kind="ndarray"), tuple(), _):
      return _Array()
    case "dtype", (str(code), *_) if re.fullmatch(r"[biuf][1248]", code):
      return _Dtype(code)
    case "dtype", (code, *_):
      raise RefusedError(f"found an array of type {one_line(code)}")
    case "encode", (str(text), "latin1" | "latin-1"):
      return text.encode("latin-1")
    case "scalar", (_Dtype() as dtype, bytes(data)):
      return _Array(_array((), dtype, data, "C"))
    case "frombuffer", (bytes() | bytearray() as data, _Dtype() as dtype, tuple(shape), str(order)):
      return _Array(_array(shape, dtype, bytes(data), order))
  raise RefusedError(f"found a call of {kind or one_line(function)} with {one_line(arguments)}")


def _set_state(target: Any, state: Any) -> None:
  """Applies BUILD to a dtype or an array."""
  match target, state:
    case _Dtype(), (int(), str(order), None, None, None, *_) if order in ("<", ">", "|", "="):
      target.order = order
    case _Array(), (int(), tuple(shape), _Dtype() as dtype, bool() | int() as fortran, data):
      if not isinstance(data, (bytes, bytearray)):
        raise RefusedError(f"found an array of {type(data).__name__}")
      target.value = _array(shape, dtype, bytes(data), "F" if fortran else "C")
    case _:
      raise RefusedError(f"found a state {one_line(state)} for {type(target).__name__.strip('_')}")


def _array(shape: tuple[Any, ...], dtype: _Dtype, data: bytes, order: str) -> np.ndarray:
  real = dtype.numpy()
  if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
    raise RefusedError(f"found an array of the shape {one_line(shape)}")
  if math.prod(shape) * real.itemsize != len(data):
    raise RefusedError(
      f"found an array that claims the shape {one_line(shape)} in {len(data)} bytes"
    )
  array = np.frombuffer(data, real).reshape(shape, order="F" if order == "F" else "C")
  return array.astype(real.newbyteorder("="))  # writeable, and of this machine's byte order


def _resolve(value: Any) -> Any:
  """Replaces placeholders by their arrays; counts the values that references multiply to."""
  left = [_MAX_VALUES]

  def visit(value: Any, depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH:
      raise RefusedError(f"more than {_MAX_VALUES} values or {_MAX_DEPTH} levels")
    if isinstance(value, (list, tuple)):
      return type(value)([visit(v, depth + 1) for v in value])
    if isinstance(value, dict):
      return {k: visit(v, depth + 1) for k, v in value.items()}
    if isinstance(value, _Array):
      if value.value is None:
        raise RefusedError("found an array without values")
      return value.value
    if isinstance(value, (Global, _Dtype)) or value is _MARK:
      raise RefusedError(f"found {type(value).__name__.strip('_').lower()} as a value")
    return value

  return visit(value, 0)
