"""Checkpoints of torch: tensors come out without torch, and nothing in the file is run."""

from __future__ import annotations

import os
import pathlib
import zipfile

import numpy as np
import pytest

from jaxsplat_mouse.io.torch_checkpoint import StoredTensor, load_checkpoint
from tests.io.file_fixtures import refused
from tests.io.torch_files import model_of, write_checkpoint

_MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
_CONTENT = {
  "model": model_of({"a.weight": _MATRIX, "half": np.array([0.5, -2], np.float16)}),
  "optimizer": {"state": {0: {"step": np.array(7, np.int64)}}, "lr": [0.1, None, True]},
  "step": 3,
}


def test_values_and_tensors_come_out(tmp_path):
  path = tmp_path / "c.pt"
  write_checkpoint(path, _CONTENT)
  found = load_checkpoint(path)
  assert found["step"] == 3
  assert found["optimizer"]["lr"] == [0.1, None, True]
  tensor = found["model"]["a.weight"]
  assert isinstance(tensor, StoredTensor)
  assert tensor.shape == (3, 4)
  np.testing.assert_array_equal(tensor.read(), _MATRIX)
  assert found["model"]["half"].read().tolist() == [0.5, -2.0]
  assert found["optimizer"]["state"][0]["step"].read() == 7


def test_views_of_a_storage_keep_their_place_and_order(tmp_path):
  path = tmp_path / "c.pt"
  write_checkpoint(path, {"turned": _MATRIX.T, "row": _MATRIX[1], "part": _MATRIX[1:, ::2]})
  found = load_checkpoint(path)
  for name, expected in (("turned", _MATRIX.T), ("row", _MATRIX[1]), ("part", _MATRIX[1:, ::2])):
    np.testing.assert_array_equal(found[name].read(), expected)


def test_bfloat16_becomes_float32(tmp_path):
  path = tmp_path / "c.pt"
  numbers = np.array([1.0, -0.15625, 3e38], np.float32)
  write_checkpoint(path, {"x": (numbers.view(np.uint32) >> 16).astype(np.uint16)})
  np.testing.assert_allclose(load_checkpoint(path)["x"].read(), numbers, rtol=2**-8)


def test_a_payload_does_not_run(tmp_path):
  class Payload:
    def __reduce__(self):
      return os.system, (f"touch {tmp_path / 'proof'}",)

  path = tmp_path / "c.pt"
  write_checkpoint(path, {"model": Payload()})
  problem = refused(lambda: load_checkpoint(path), "c.pt", "")
  assert "found 'posix.system', a thing to import" in problem
  assert "expected tensors, numbers, text" in problem
  assert not (tmp_path / "proof").exists()


def _rewrite(path: pathlib.Path, change: dict[str, bytes | None]) -> None:
  """Replaces entries of an archive, or leaves them out."""
  with zipfile.ZipFile(path) as archive:
    entries = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, "w") as archive:
    for name, data in {**entries, **change}.items():
      if data is not None:
        archive.writestr(name, data)


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"name/data/0": None}, "There is no item named 'name/data/0'"),
    ({"name/data/0": b"short"}, "5 bytes; expected 12 numbers of 4"),
    ({"name/data/0": bytes(49)}, "larger than 48 bytes"),
  ],
)
def test_damaged_storages_are_refused_when_they_are_read(tmp_path, change, problem):
  path = tmp_path / "c.pt"
  write_checkpoint(path, _CONTENT)
  _rewrite(path, change)
  tensor = load_checkpoint(path)["model"]["a.weight"]
  assert problem in refused(tensor.read, "c.pt", "name/data/0")


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"name/byteorder": b"big"}, "expected little"),
    ({"name/data.pkl": None}, "0 files data.pkl"),
    ({"other/data.pkl": b""}, "2 files data.pkl"),
    ({"name/data.pkl": b"\x80\x02}"}, "cut short"),
  ],
)
def test_damaged_files_are_refused(tmp_path, change, problem):
  path = tmp_path / "c.pt"
  write_checkpoint(path, _CONTENT)
  _rewrite(path, change)
  field = "name/byteorder" if "little" in problem else ""
  assert problem in refused(lambda: load_checkpoint(path), "c.pt", field)


def test_what_is_no_archive_is_refused(tmp_path):
  path = tmp_path / "c.pt"
  assert "no such file" in refused(lambda: load_checkpoint(path), "c.pt", "")
  path.write_bytes(b"\x80\x02}q\x00.")
  assert "not a zip file); expected a file of torch.save" in refused(
    lambda: load_checkpoint(path), "c.pt", ""
  )
  write_checkpoint(path, _CONTENT, zipfile.ZIP_DEFLATED)
  assert "compressed" in refused(lambda: load_checkpoint(path), "c.pt", "name/data.pkl")


def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path):
  path = tmp_path / "c.pt"
  write_checkpoint(path, {"x": np.zeros((3, 200), np.float32)})
  with zipfile.ZipFile(path) as archive:
    data = archive.read("name/data.pkl")
  shape = b"K\x03K\xc8\x86"  # the numbers 3 and 200, a tuple
  assert data.count(shape) == 1
  _rewrite(path, {"name/data.pkl": data.replace(shape, b"K\x04K\xc8\x86")})
  problem = refused(lambda: load_checkpoint(path), "c.pt", "")
  assert "a tensor of shape (4, 200) that leaves its storage" in problem
