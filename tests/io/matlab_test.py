"""MATLAB files: both containers as the same plain values, and broken ones in one line."""

from __future__ import annotations

import pathlib
import struct
import sys
import zlib

import numpy as np
import pytest

from jaxsplat_mouse.io import matlab
from tests.io.file_fixtures import refused, write_mat

pytest.importorskip("scipy")
h5py = pytest.importorskip("h5py")

DATA = {
  "matrix": np.arange(6.0).reshape(2, 3),
  "count": np.array([[3]], np.uint16),
  "name": "Camera1",
  "names": ["Camera1", "Ärmel"],
  "cell": [{"K": np.eye(3), "inner": {"x": np.array([[1, 2]], np.int32)}}, {"K": np.zeros((3, 2))}],
}


def check(found, expected) -> None:
  if isinstance(expected, dict):
    assert set(found) == set(expected)
    for key, value in expected.items():
      check(found[key], value)
  elif isinstance(expected, list):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
      check(a, b)
  elif isinstance(expected, str):
    assert found == expected
  else:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_both_containers_give_the_same_values(tmp_path, version: str):
  path = write_mat(tmp_path / "a.mat", DATA, version)
  check(matlab.read_matlab(path, tuple(DATA)), DATA)
  assert set(matlab.read_matlab(path, ("name", "absent"))) == {"name"}


def test_a_struct_array_is_a_list(tmp_path):
  import scipy.io

  array = np.array([[(1.0,), (2.0,), (3.0,)]], dtype=[("K", object)])
  scipy.io.savemat(tmp_path / "5.mat", {"params": array})
  with h5py.File(tmp_path / "73.mat", "w") as file:
    group = file.create_group("params")
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    cells = []
    for i in (1.0, 2.0, 3.0):
      node = file.create_dataset(f"#refs#/{i}", data=[[i]])
      node.attrs["MATLAB_class"] = np.bytes_("double")
      cells.append([node.ref])
    group.create_dataset("K", data=np.array(cells, h5py.ref_dtype), dtype=h5py.ref_dtype)
  for name in ("5.mat", "73.mat"):
    found = matlab.read_matlab(tmp_path / name, ("params",))["params"]
    assert [float(entry["K"][0, 0]) for entry in found] == [1, 2, 3]


def test_empty_values_and_objects_of_version_73(tmp_path):
  with h5py.File(tmp_path / "a.mat", "w") as file:
    for key, kind in (("none", "double"), ("text", "char"), ("cell", "cell")):
      node = file.create_dataset(key, data=np.array([0, 3], np.uint64))
      node.attrs["MATLAB_class"], node.attrs["MATLAB_empty"] = np.bytes_(kind), np.uint8(1)
    table = file.create_dataset("table", data=np.zeros((1, 6), np.uint32))
    table.attrs["MATLAB_class"] = np.bytes_("table")
  found = matlab.read_matlab(tmp_path / "a.mat", ("none", "text", "cell", "table"))
  assert found.pop("none").shape == (0, 3)
  assert found == {"text": "", "cell": []}


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_a_cut_file_is_refused(tmp_path, version: str):
  path = write_mat(tmp_path / "a.mat", DATA, version)
  whole = path.read_bytes()
  for share in (0.0, 0.02, 0.3, 0.6, 0.9, 0.99):
    path.write_bytes(whole[: int(share * len(whole))])
    refused(lambda: matlab.read_matlab(path, tuple(DATA)), "a.mat", "")


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_damaged_bytes_never_raise_anything_else(tmp_path, version: str):
  path = write_mat(tmp_path / "a.mat", DATA, version)
  whole = bytearray(path.read_bytes())
  rng = np.random.default_rng(0)
  for _ in range(150):
    damaged = whole.copy()
    damaged[rng.integers(128, len(whole))] = rng.integers(256)
    path.write_bytes(bytes(damaged))
    try:
      matlab.read_matlab(path, tuple(DATA))
    except matlab.InputError as error:
      assert "a.mat" in str(error)


def test_a_variable_that_claims_too_much_is_refused(tmp_path):
  packed = zlib.compress(struct.pack("<II", 14, 0xF0000000) + bytes(100))
  head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
  path = tmp_path / "a.mat"
  path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
  assert "4026531740 bytes are missing" in refused(
    lambda: matlab.read_matlab(path, ("params",)), "a.mat", ""
  )
  with h5py.File(path, "w") as file:
    node = file.create_dataset("params", (1 << 20, 1 << 20), "f8", chunks=(64, 64))
    node.attrs["MATLAB_class"] = np.bytes_("double")
  problem = refused(lambda: matlab.read_matlab(path, ("params",)), "a.mat", "params")
  assert "claims the shape (1048576, 1048576)" in problem


def test_cells_that_hold_themselves_are_refused(tmp_path):
  with h5py.File(tmp_path / "a.mat", "w") as file:
    node = file.create_dataset("cell", (1, 2), h5py.ref_dtype)
    node[0] = [node.ref, node.ref]
    node.attrs["MATLAB_class"] = np.bytes_("cell")
  assert "nested" in refused(
    lambda: matlab.read_matlab(tmp_path / "a.mat", ("cell",)), "a.mat", "cell"
  )


def test_links_to_other_files_are_refused(tmp_path: pathlib.Path):
  with h5py.File(tmp_path / "secret.h5", "w") as file:
    file["value"] = np.zeros((3, 3))
  (tmp_path / "raw").write_bytes(bytes(72))
  with h5py.File(tmp_path / "a.mat", "w") as file:
    file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/value")
    file.create_dataset("outer", (3, 3), "f8", external=str(tmp_path / "raw"))
    file["outer"].attrs["MATLAB_class"] = np.bytes_("double")
  for key, problem in (("link", "a link to elsewhere"), ("outer", "stored in other files")):
    assert problem in refused(
      lambda key=key: matlab.read_matlab(tmp_path / "a.mat", (key,)), "a.mat", key
    )


@pytest.mark.parametrize(
  "content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(200), b"MATLAB 5.0 MAT-file".ljust(300)]
)
def test_what_is_no_matlab_file_is_refused(tmp_path, content: bytes):
  (tmp_path / "a.mat").write_bytes(content)
  refused(lambda: matlab.read_matlab(tmp_path / "a.mat", ("params",)), "a.mat", "")


def test_a_missing_file_and_a_missing_package_are_reported(tmp_path, monkeypatch):
  refused(lambda: matlab.read_matlab(tmp_path / "no.mat", ("params",)), "no.mat", "")
  five = write_mat(tmp_path / "5.mat", DATA)
  seven = write_mat(tmp_path / "73.mat", DATA, "7.3")
  monkeypatch.setitem(sys.modules, "h5py", None)
  assert matlab.read_matlab(five, ("name",)) == {"name": "Camera1"}
  problem = refused(lambda: matlab.read_matlab(seven, ("name",)), "73.mat", "")
  assert "pip install 'jaxsplat-mouse[video]'" in problem
