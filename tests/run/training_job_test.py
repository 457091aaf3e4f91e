"""A training from config to weights: stopped and resumed, it ends with the same bits."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.io.images import read_image
from jaxsplat_mouse.learn.training import training_data
from jaxsplat_mouse.learn.training.trainer import Trainer
from jaxsplat_mouse.learn.training.weights_folder import load_weights, save_weights
from jaxsplat_mouse.run import training_job
from jaxsplat_mouse.runtime.signals import StopRequest
from tests.learn.training_fixtures import SMALL, trace

_CONFIG = dataclasses.asdict(SMALL)


class _StopsAtOnce(StopRequest):
  """A signal that came before any data was read."""

  def __enter__(self) -> StopRequest:
    self.number = 15
    return self


@pytest.fixture(scope="module", autouse=True)
def _traced_once():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training_data.built_in_scenes, "make_scenes", trace)
    yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  """The workdir of a training that nothing interrupted."""
  folder = tmp_path_factory.mktemp("training") / "whole"
  assert training_job.train(_CONFIG, folder) == 0
  return folder


def _steps(folder: pathlib.Path) -> list[int]:
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line)["step"] for line in lines]


def test_a_training_leaves_weights_and_a_record(finished):
  weights = load_weights(finished / "weights")
  assert weights.architecture == SMALL.architecture
  assert weights.source["steps"] == 6 and weights.source["steps_not_taken"] == 0
  assert _steps(finished) == [3, 6]
  assert json.loads((finished / "training.json").read_text())["config"]["optimizer.steps"] == 6


def test_a_stopped_training_goes_on_to_the_same_weights(finished, tmp_path, monkeypatch, capsys):
  folder = tmp_path / "w"
  usual_capacity = Trainer.usual_capacity

  def with_signal(trainer: Trainer) -> int:
    """The data are there, and the first step comes next."""
    os.kill(os.getpid(), signal.SIGTERM)
    return usual_capacity(trainer)

  with monkeypatch.context() as patch:
    patch.setattr(Trainer, "usual_capacity", with_signal)
    assert training_job.train(_CONFIG, folder) == 143
  assert "Stopped by SIGTERM. The same command continues" in capsys.readouterr().out
  assert not (folder / "weights").exists()
  # What a killed process had recorded beyond its last checkpoint is taken again.
  with (folder / "metrics.jsonl").open("a") as file:
    file.write('{"step": 5}\n{"step": 6, "lo')
  assert training_job.train(_CONFIG, folder) == 0
  assert "Goes on at step 3 of 6" in capsys.readouterr().out
  assert _steps(folder) == [3, 6]
  whole, resumed = (load_weights(f / "weights").parameters for f in (finished, folder))
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_signal_before_the_data_ends_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr(training_job, "StopRequest", _StopsAtOnce)
  assert training_job.train(_CONFIG, tmp_path / "w") == 143
  assert not (tmp_path / "w" / "training.json").exists()


def test_another_configuration_is_refused(finished):
  changed = {**_CONFIG, "optimizer": {**_CONFIG["optimizer"], "rate": 0.5}}
  with pytest.raises(ConfigError, match=r"optimizer\.rate: 0\.5, but .* was made with 0\.001"):
    training_job.train(changed, finished)


def test_a_start_that_failed_binds_nobody(tmp_path):
  """A setting that could not be used may be put right in the same workdir."""
  wrong = {**_CONFIG, "data": {**_CONFIG["data"], "datasets": str(tmp_path / "no.txt")}}
  with pytest.raises(InputError, match=r"no\.txt: cannot be read"):
    training_job.train(wrong, tmp_path / "w")
  assert training_job.train(_CONFIG, tmp_path / "w") == 0


@pytest.mark.slow
def test_held_out_scenes_are_scored_and_shown(tmp_path, capsys):
  config = {**_CONFIG, "data": {**_CONFIG["data"], "held_out": "mice:2"}}
  assert training_job.train(config, tmp_path / "w") == 0
  lines = [json.loads(x) for x in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
  (scores,) = (line for line in lines if "held_out_novel_iou" in line)
  assert scores["step"] == 6 and 0 < scores["held_out_novel_iou"] <= 1
  assert "step 6: held-out scenes" in capsys.readouterr().out
  picture = read_image(tmp_path / "w" / "held_out.png")
  assert picture.shape == (4 * 2 * 32, 3 * 32, 3)
  truth, model = picture[:32], picture[32:64]
  assert truth.min() < 128 and (model < 250).any() and (model[0] == 255).all()


def test_curves_are_written(tmp_path, monkeypatch):
  library = pytest.importorskip("tensorboardX", reason="needs the extra `tensorboard`")
  got = []
  monkeypatch.setattr(library.SummaryWriter, "add_scalar", lambda self, *a: got.append(a))
  config = {**_CONFIG, "saving": {**_CONFIG["saving"], "tensorboard": True}}
  assert training_job.train(config, tmp_path / "w") == 0
  assert {("train/loss", 3), ("train/loss", 6)} <= {(name, step) for name, _, step in got}


def test_a_training_that_cannot_move_ends_in_one_line(finished, tmp_path):
  """Weights that are not numbers make no gradient that is."""
  start = load_weights(finished / "weights")
  start.parameters["head"]["kernel"][:] = 3e38
  save_weights(tmp_path / "start", start)
  config = {**_CONFIG, "weights": str(tmp_path / "start")}
  with pytest.raises(InputError) as caught:
    training_job.train(config, tmp_path / "w")
  assert "step 3: the gradient of 3 of 3 steps was not finite or above 20" in str(caught.value)
  assert not (tmp_path / "w" / "weights").exists()


def test_weights_pass_their_licence_on(finished, tmp_path):
  start = dataclasses.replace(load_weights(finished / "weights"), license="L", notice="Say so.\n")
  save_weights(tmp_path / "start", start)
  config = {**_CONFIG, "weights": str(tmp_path / "start")}
  assert training_job.train(config, tmp_path / "w") == 0
  found = load_weights(tmp_path / "w" / "weights")
  assert (found.license, found.notice) == ("L", "Say so.\n")
  assert found.source["started_from"]["steps"] == 6


def test_weights_of_another_network_are_refused(finished, tmp_path):
  shape = {**_CONFIG["architecture"], "depth": 2}
  config = {**_CONFIG, "architecture": shape, "weights": str(finished / "weights")}
  with pytest.raises(ConfigError, match=r"architecture\.depth: 2, but the weights have 1"):
    training_job.train(config, tmp_path / "w")
