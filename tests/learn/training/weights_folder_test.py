"""Folders of weights: what is written is read, and what does not fit is named in one line."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters
from jaxsplat_mouse.learn.training.weights_folder import Weights, load_weights, save_weights
from tests.io.file_fixtures import refused
from tests.learn_fixtures import TINY


@pytest.fixture(scope="module")
def weights() -> Weights:
  parameters = jax.tree.map(np.asarray, init_parameters(TINY, jax.random.key(0)))
  return Weights(
    architecture=TINY,
    parameters=parameters,
    source={"steps": 3},
    license="CC-BY-4.0",
    notice="Say so.\n",
  )


def _same(found: Weights, expected: Weights, **tolerance: float) -> None:
  assert found.architecture == expected.architecture
  assert (found.source, found.license) == (expected.source, expected.license)
  assert found.notice == expected.notice
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **{"rtol": 0, **tolerance}),
    found.parameters,
    expected.parameters,
  )


@pytest.mark.parametrize("limit", [15 << 20, 100_000])
def test_what_is_written_is_read(tmp_path, weights, limit):
  save_weights(tmp_path / "w", weights, piece_bytes=limit)
  _same(load_weights(tmp_path / "w"), weights)
  files = sorted((tmp_path / "w").glob("weights_*.npz"))
  assert (len(files) > 3) == (limit == 100_000)
  # 640 x 64 numbers alone are larger than the limit, and have a file of their own.
  assert all(file.stat().st_size < max(limit, 4 * 640 * 64) + 4000 for file in files)


def test_half_precision_takes_half_the_space(tmp_path, weights):
  for name in ("float32", "float16"):
    save_weights(tmp_path / name, weights, name)
  size = lambda name: (tmp_path / name / "weights_000.npz").stat().st_size
  assert size("float16") < 0.55 * size("float32")
  found = load_weights(tmp_path / "float16")
  _same(found, weights, rtol=1e-3, atol=1e-6)
  assert found.parameters["embed"]["kernel"].dtype == np.float32


def test_nothing_is_overwritten(tmp_path, weights):
  save_weights(tmp_path / "w", weights)
  problem = refused(lambda: save_weights(tmp_path / "w", weights), "w", "")
  assert "exists already; expected the name of a new folder" in problem


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (1e6, "float16")])
def test_numbers_that_cannot_be_stored_leave_no_folder(tmp_path, weights, value, dtype):
  bad = {**weights.parameters, "registers": np.full((8, 64), value, np.float32)}
  broken = Weights(architecture=TINY, parameters=bad, source={})
  problem = refused(lambda: save_weights(tmp_path / "w", broken, dtype), "w", "registers")
  assert f"too large for {dtype}" in problem
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("change", "field", "problem"),
  [
    ({"format": 2}, "format", "2; expected 1"),
    ({"architecture": {"width": 64}}, "architecture", "expected depth"),
    ({"files": {}}, "files", "missing; expected the names"),
    ({"files": {"../w.npz": []}}, "files", "leads out of the folder"),
    ({"files": {"no.npz": []}}, "", "cannot be read"),
  ],
)
def test_a_broken_record_is_named(tmp_path, weights, change, field, problem):
  save_weights(tmp_path / "w", weights)
  file = tmp_path / "w" / "model.json"
  file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
  found = refused(lambda: load_weights(tmp_path / "w"), "w", field)
  assert problem.replace("expected depth", "expected depth") in found


def test_weights_of_another_network_are_named(tmp_path, weights):
  save_weights(tmp_path / "w", weights)
  file = tmp_path / "w" / "model.json"
  record = json.loads(file.read_text())
  record["architecture"]["depth"] = 3
  file.write_text(json.dumps(record))
  problem = refused(lambda: load_weights(tmp_path / "w"), "w", "blocks/")
  assert "(2, 64); expected (3, 64)" in problem
  record["architecture"] |= {"depth": 2, "facelift": True, "stride": 1}
  file.write_text(json.dumps(record))
  refused(lambda: load_weights(tmp_path / "w"), "w", "")
  record["architecture"]["width"] = 65
  file.write_text(json.dumps(record))
  problem = refused(lambda: load_weights(tmp_path / "w"), "model.json", "architecture")
  assert "width: 65, expected a multiple of 32" in problem


def test_damaged_and_missing_files_are_named(tmp_path, weights):
  assert "no model.json" in refused(lambda: load_weights(tmp_path), "", "")
  save_weights(tmp_path / "w", weights)
  (tmp_path / "w" / "weights_000.npz").write_bytes(b"PK\x03\x04 cut short")
  assert "cannot be read" in refused(lambda: load_weights(tmp_path / "w"), "weights_000.npz", "")
