"""The restricted unpickler: what calibrations hold comes out, and nothing that is named runs."""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from jaxsplat_mouse.io import restricted_pickle
from tests.io.file_fixtures import refused

PLAIN = [
  {
    "K": np.arange(9.0).reshape(3, 3),
    "R": np.asfortranarray(np.arange(9, dtype=np.float32).reshape(3, 3)),
    "T": np.arange(3, dtype=">i4"),
    "mapx": np.zeros((4, 5), np.float32),
    "flag": np.array([True, False]),
    "size": (1152, 1024),
    "scalar": np.float64(2.5),
    "text": "Käfig",
    "bytes": b"\x00\xff",
    "none": [None, True, False, -(2**40), 1e300, []],
    7: {"nested": ((),)},
  }
] * 2


def write(path: pathlib.Path, data: bytes) -> pathlib.Path:
  path.write_bytes(data)
  return path


def load(tmp_path: pathlib.Path, data: bytes):
  return restricted_pickle.load_pickle(write(tmp_path / "cam.pkl", data))


def refusal(tmp_path: pathlib.Path, data: bytes) -> str:
  return refused(lambda: load(tmp_path, data), "cam.pkl", "")


def same(found, expected) -> None:
  if isinstance(expected, np.ndarray | np.generic):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
  elif isinstance(expected, dict):
    assert list(found) == list(expected)
    for key in expected:
      same(found[key], expected[key])
  elif isinstance(expected, list | tuple):
    assert type(found) is type(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
      same(a, b)
  else:
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_survive_every_protocol(tmp_path, protocol: int):
  same(load(tmp_path, pickle.dumps(PLAIN, protocol)), PLAIN)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numpy_1_and_2_name_the_same_things(tmp_path, core: bytes):
  data = pickle.dumps(np.arange(4.0), 2).replace(b"numpy._core", b"numpy.core")
  same(load(tmp_path, data.replace(b"numpy.core", core)), np.arange(4.0))


def test_arrays_can_be_written_to(tmp_path):
  found = load(tmp_path, pickle.dumps(np.zeros(3), 4))
  found += 1
  assert found.tolist() == [1, 1, 1]


class Payload:
  """Runs a command where a pickle of it is opened in the usual way."""

  def __init__(self, command: str):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


def test_a_payload_does_not_run(tmp_path):
  proof = tmp_path / "proof"
  data = pickle.dumps([{"K": np.eye(3), "R": Payload(f"touch {proof}")}])
  assert "found 'posix.system', a thing to import" in refusal(tmp_path, data)
  assert not proof.exists()
  pickle.loads(data)
  assert proof.exists(), "the payload itself must work, or the test shows nothing"


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
  ("value", "found"),
  [
    (collections.OrderedDict(a=1), "collections.OrderedDict"),
    (pathlib.PurePosixPath("/etc"), "pathlib"),
    ({1, 2}, ""),
    (np.array([[1], "x"], object), "an array of type 'O8'"),
    (np.array(["text"]), "an array of type 'U4'"),
    (np.zeros(2, "i4,f8"), "an array of type 'V12'"),
    (np.dtype("f8"), "dtype as a value"),
    (eval, "eval"),
    (np.ndarray, "global as a value"),
    (2**70, "more than 64 bits"),
    ({(1, 2): 3}, "a dict with the key (1, 2)"),
    (1j, "complex"),
  ],
)
def test_what_is_not_plain_is_named(tmp_path, protocol: int, value, found: str):
  problem = refusal(tmp_path, pickle.dumps(value, protocol))
  assert found in problem
  assert "expected numbers, text, lists, dicts and numeric NumPy arrays only" in problem


@pytest.mark.parametrize(
  "code",
  [
    b"cos\nsystem\n(S'true'\ntR.",  # protocol 0
    b"(S'true'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'true'\no.",  # OBJ
    b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ of an allowed name
    b"\x80\x02cnumpy\nndarray\n(I9999999999\ntR.",  # a call of an allowed name
    b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR}b.",  # a state of another kind
    b"\x80\x04\x8c\x05numpy\x8c\x0bload.system\x93.",  # a dotted name
    b"Pevil\n.",  # a persistent id
    b"\x80\x02\x82\x01.",  # an extension code
    b"\x80\x05\x97.",  # an out-of-band buffer
    b"K\x01K\x02.",  # a value left over
    pickle.dumps(np.eye(9), 4)[:-1] + b")R.",  # a call of an array, whose text has many lines
    b".",
    b"",
    b"}(K\x01u.",
    b"K\x01a.",
    b"(",
    b"g7\n.",
    b"\xff\xff\xff",
    b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",
  ],
)
def test_hand_made_pickles_are_refused(tmp_path, code: bytes):
  refusal(tmp_path, code)


def test_any_cut_is_refused_in_one_line(tmp_path):
  data = pickle.dumps(PLAIN, 4)
  for length in [*range(0, len(data), 37), len(data) - 1]:
    refusal(tmp_path, data[:length])


def test_damaged_bytes_never_raise_anything_else(tmp_path):
  data = bytearray(pickle.dumps(PLAIN, 4))
  rng = np.random.default_rng(0)
  for _ in range(300):
    damaged = data.copy()
    damaged[rng.integers(len(data))] = rng.integers(256)
    try:
      load(tmp_path, bytes(damaged))
    except restricted_pickle.InputError as error:
      assert "cam.pkl" in str(error)


def array_claiming(shape: tuple[int, ...]) -> bytes:
  data = pickle.dumps(np.zeros((1, 1)), 2)
  one = pickle.dumps((1, 1), 2)[2:-1].split(b"q")[0]
  assert data.count(one) == 1
  return data.replace(one, pickle.dumps(shape, 2)[2:-1].split(b"q")[0])


@pytest.mark.parametrize(
  "data",
  [
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",  # BYTEARRAY8
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",  # BINBYTES8
    b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.",  # BINUNICODE8
    b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",  # LONG4
    b"]r\xff\xff\xff\xff0.",  # a memo of four billion places
    b"I" + b"9" * 100_000 + b"\n.",
    array_claiming((1 << 20, 1 << 20)),
    array_claiming((1 << 60, 1 << 60)),
    array_claiming((-1, -1)),
    # each level holds the one before ten times: 10^20 values in a few bytes
    b"K\x01q\x00" + b"".join(b"](" + b"h\x00" * 10 + b"eq\x00" for _ in range(20)) + b".",
    b"]q\x00h\x00a.",  # a list in itself
    b"(" * 20_000 + b"N" + b"l" * 20_000 + b".",
  ],
  ids=lambda data: str(data[:12]),
)
def test_memory_bombs_are_refused_without_taking_memory(tmp_path, data: bytes):
  tracemalloc.start()
  try:
    refusal(tmp_path, data)
    assert tracemalloc.get_traced_memory()[1] < 400 << 20
  finally:
    tracemalloc.stop()


def test_too_large_a_file_is_refused_unread(tmp_path):
  path = tmp_path / "cam.pkl"
  with path.open("wb") as file:
    file.truncate((1 << 30) + 1)
  assert "larger than 1 GiB" in refused(lambda: restricted_pickle.load_pickle(path), "cam.pkl", "")
  assert "cannot be read" in refused(
    lambda: restricted_pickle.load_pickle(tmp_path / "no.pkl"), "no.pkl", ""
  )
