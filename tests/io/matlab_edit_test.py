"""Arrays inside a MATLAB file are replaced; all else stays, and what is not there is refused."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.io import matlab, matlab_edit
from tests.io.file_fixtures import refused, write_mat

scipy_io = pytest.importorskip("scipy.io")
pytest.importorskip("h5py")


def content() -> dict:
  params = [{"K": np.eye(3), "r": np.arange(9.0).reshape(3, 3), "t": np.ones((1, 3))} for _ in "ab"]
  return {"names": ["a", "b"], "params": params, "top": np.arange(4.0)[None]}


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_arrays_of_cells_and_variables(tmp_path: pathlib.Path, version: str) -> None:
  file = write_mat(tmp_path / "a.mat", content(), version)
  turn, shift = np.random.default_rng(0).normal(size=(3, 3)), np.array([7.0, 8.0, 9.0])
  changes = {("params", 1, "r"): turn, ("params", 1, "t"): shift, ("top",): -np.arange(4.0)}
  target = tmp_path / "b.mat"
  target.write_bytes(matlab_edit.replace_arrays(file, changes))
  found = matlab.read_matlab(target, ("names", "params", "top"))
  wanted = content()
  wanted["params"][1] |= {"r": turn, "t": shift[None]}
  wanted["top"] = -wanted["top"]
  np.testing.assert_equal(found, wanted)


def test_a_struct_array_and_what_is_not_understood(tmp_path: pathlib.Path) -> None:
  """Integers that the file stores small grow to doubles; SciPy reads the whole file too."""
  array = np.zeros((1, 2), [("t", "O"), ("note", "O")])
  for i in range(2):
    array[0, i] = (np.array([[1.0, 2.0, 3.0]]), f"note {i}")
  file = tmp_path / "a.mat"
  scipy_io.savemat(file, {"params": array, "sparse": np.eye(2) > 0})
  changed = matlab_edit.replace_arrays(file, {("params", 0, "t"): np.array([0.1, 0.2, 0.3])})
  (tmp_path / "b.mat").write_bytes(changed)
  found = scipy_io.loadmat(tmp_path / "b.mat")
  np.testing.assert_array_equal(found["params"][0, 0]["t"], [[0.1, 0.2, 0.3]])
  np.testing.assert_array_equal(found["params"][0, 1]["t"], [[1.0, 2.0, 3.0]])
  assert found["params"][0, 1]["note"][0] == "note 1"
  np.testing.assert_array_equal(found["sparse"], np.eye(2))


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("place", [("params", 0, "x"), ("nothing",), ("params", 0, "t", "deep")])
def test_what_is_not_there_is_refused(
  tmp_path: pathlib.Path, version: str, place: matlab_edit.Place
) -> None:
  file = write_mat(tmp_path / "a.mat", content(), version)
  call = lambda: matlab_edit.replace_arrays(file, {place: np.zeros(3)})
  assert "expected the one that was read" in refused(call, "a.mat", str(place[-1]))


def test_other_sizes_and_types_are_refused(tmp_path: pathlib.Path) -> None:
  place = ("params", 1, "t")
  for version in ("5", "7.3"):
    file = write_mat(tmp_path / "a.mat", content(), version)
    call = lambda file=file: matlab_edit.replace_arrays(file, {place: np.zeros(4)})
    assert "expected" in refused(call, "a.mat", "params{2}.t")
  single = {"t": np.ones((1, 3), np.float32)}
  file = write_mat(tmp_path / "b.mat", single, "7.3")
  call = lambda: matlab_edit.replace_arrays(file, {("t",): np.zeros(3)})
  assert "float32; expected double" in refused(call, "b.mat", "t")
  file = write_mat(tmp_path / "c.mat", single, "5")
  (tmp_path / "d.mat").write_bytes(matlab_edit.replace_arrays(file, {("t",): np.full(3, 0.1)}))
  assert matlab.read_matlab(tmp_path / "d.mat", ("t",))["t"].tolist() == [[0.1] * 3]
