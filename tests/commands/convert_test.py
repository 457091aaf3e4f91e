"""The convert command: a checkpoint of FaceLift's trainer to a folder of weights."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse.commands import console, convert
from jaxsplat_mouse.learn.training.weights_folder import load_weights
from tests.io.torch_files import model_of, write_checkpoint
from tests.learn.facelift_fixtures import facelift_weights


def _run(tmp_path, weights) -> int:
  state = {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}}
  write_checkpoint(tmp_path / "ckpt.pt", {"model": model_of(weights), "optimizer": state})
  arguments = [f"--checkpoint={tmp_path / 'ckpt.pt'}", f"--output={tmp_path / 'w'}"]
  return console.run_command(convert, ["convert", *arguments, "--head-width=8"])


def test_a_checkpoint_becomes_weights_with_their_licence(tmp_path, capsys):
  weights = facelift_weights()
  assert _run(tmp_path, weights) == 0
  found = load_weights(tmp_path / "w")
  np.testing.assert_array_equal(
    found.parameters["head"]["kernel"], weights["pixel_gaussian_decoder.1.weight"].T
  )
  assert found.source["converted_from"] == "ckpt.pt" and len(found.source["sha256"]) == 64
  assert "noncommercial research purposes only" in found.notice
  assert found.source["sha256"] in found.notice
  out = capsys.readouterr().out
  assert "2 blocks of width 16, patch 4" in out and "licence: Adobe Research License" in out
  # A second run must not overwrite.
  assert _run(tmp_path, weights) == 1
  assert "w: exists already; expected the name of a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"input_layer_norm.weight": None}, "model: missing: input_layer_norm.weight; expected"),
    ({"x.bias": np.zeros(2, np.float32)}, "model: unknown: x.bias; expected the weights of"),
    ({"input_layer_norm.weight": np.ones(15, np.float32)}, "(15,) in place of (16,)"),
    ({"input_layer_norm.weight": np.full(16, np.nan, np.float32)}, "expected finite floating"),
    ({"input_layer_norm.weight": np.ones(16, np.int64)}, "expected finite floating"),
    ({"input_layer_norm.weight": 3}, "model.input_layer_norm.weight: int; expected tensors only"),
    ({"gaussian_position_embeddings": np.ones((2, 20), np.float32)}, "width: 20, expected a"),
  ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, capsys, change, problem):
  weights = {k: v for k, v in {**facelift_weights(), **change}.items() if v is not None}
  assert _run(tmp_path, weights) == 1
  err = capsys.readouterr().err
  assert err.startswith("error: ") and problem in err and err.count("\n") == 1
  assert not (tmp_path / "w").exists()


def test_missing_flags_are_named(capsys):
  assert console.run_command(convert, ["convert", "--output=w"]) == 1
  assert "--checkpoint: missing; see --help" in capsys.readouterr().err
