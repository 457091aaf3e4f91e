"""A training from its config to a folder of weights, resumed where it was stopped or killed.

WORKDIR/training.json   configuration, versions and device of the last start
WORKDIR/lock            held by the running process
WORKDIR/checkpoints/    the newest two states, by step
WORKDIR/metrics.jsonl   means of every interval of steps, and scores of the held-out scenes
WORKDIR/held_out.png    held-out samples, truth above model
WORKDIR/tensorboard/    curves, with `saving.tensorboard`
WORKDIR/weights/        the result
"""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxsplat_mouse.errors import ConfigError, InputError, reason
from jaxsplat_mouse.io import atomic, checks, images
from jaxsplat_mouse.learn.training import weights_folder
from jaxsplat_mouse.learn.training.held_out import HeldOutScenes
from jaxsplat_mouse.learn.training.train_step import TrainingState, first_state, local_mesh
from jaxsplat_mouse.learn.training.trainer import Interval, Trainer
from jaxsplat_mouse.learn.training.training_data import Mixture, load_datasets, parse_datasets
from jaxsplat_mouse.learn.training.training_recipe import TrainingRecipe
from jaxsplat_mouse.learn.training.weights_folder import Weights
from jaxsplat_mouse.report.tensorboard import TensorBoardWriter
from jaxsplat_mouse.run.config_keys import differences, flatten
from jaxsplat_mouse.run.training_settings import FREE_TRAINING_KEYS, recipe_from_config
from jaxsplat_mouse.run.workdir import Workdir, versions
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.checkpoints import CheckpointError, Checkpoints
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

RECORD_FILE, WEIGHTS_FOLDER, PICTURES_FILE = "training.json", "weights", "held_out.png"


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> int:
  """Trains a network and writes its weights; goes on where an earlier start ended.

  Args:
    config: as `configs/gslrm.py` returns it.
    workdir: the folder of the training.

  Returns:
    the exit status: 0 done, 130 or 143 if Ctrl-C or SIGTERM stopped it.

  Raises:
    ConfigError: a setting cannot be used, or differs from the one that the workdir was made with.
    InputError: a dataset or weights cannot be read, or the workdir cannot be written or is in use.
  """
  recipe = recipe_from_config(config)
  folder = Workdir(workdir)
  try:
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    atomic.clean_stale(folder.path)
  except OSError as error:
    problem = f"not writable ({reason(error)}); expected a folder for output"
    raise InputError(folder.path, "", problem) from None
  with folder.locked(), StopRequest() as stop:
    job = _TrainingJob(recipe, folder, stop, flatten(config))
    try:
      with job.progress:
        job.run()
    except Stopped as stopped:
      job.progress.line(f"Stopped by {stopped.name}. The same command continues from here.")
      return stopped.exit_status
    finally:
      job.close()
  return 0


class _TrainingJob:
  """One start of a training."""

  def __init__(
    self, recipe: TrainingRecipe, folder: Workdir, stop: StopRequest, flat: Mapping[str, Any]
  ):
    self._recipe, self._folder, self._stop, self._flat = recipe, folder, stop, flat
    self._checkpoints = Checkpoints(folder.checkpoints)
    self._output = folder.path / WEIGHTS_FOLDER
    self.progress = Progress("trainings", 1)
    curves = folder.path / "tensorboard" if recipe.saving.tensorboard else None
    self._curves = TensorBoardWriter(curves, "saving.tensorboard")
    self._start: Weights | None = None
    self._held_out: HeldOutScenes | None = None
    self._saved_at = time.monotonic()

  def run(self) -> None:
    """Loads data, takes the steps that are left, and writes the weights.

    Raises:
      Stopped: a signal came; the state is saved.
    """
    recipe = self._recipe
    self._check_same()
    try:
      mesh = local_mesh(jax.local_devices(), recipe.optimizer.batch)
    except ValueError as error:
      raise ConfigError(str(error)) from None
    self._start = self._read_start()
    mixture = self._load("data.datasets", recipe.data.datasets)
    if recipe.data.held_out:
      others = self._load("data.held_out", recipe.data.held_out)
      self._held_out = HeldOutScenes(recipe, others, mesh.devices.flat[0])
    self._stop.check()
    self._record_start()
    self._trainer = Trainer(recipe, mixture, mesh)
    state, capacity = self._restore()
    self._capacity = capacity
    self.progress.start_task(["training"], int(state.step), recipe.optimizer.steps)
    state = self._trainer.run(state, capacity, self._interval_done)
    self._export(state)
    self.progress.end_task()
    self.progress.item_ended()

  def close(self) -> None:
    """Releases the checkpoints and closes the curves."""
    self._checkpoints.close()
    self._curves.close()

  def _check_same(self) -> None:
    """Refuses to go on with another network or other data than the workdir's.

    Raises:
      ConfigError: a key differs on which what was learnt depends.
      InputError: the record of the earlier start cannot be read.
    """
    file = self._folder.path / RECORD_FILE
    begun = self._checkpoints.steps() or self._output.exists()
    if not begun or not file.is_file():
      return
    old = checks.read_json(file).get("config", {})
    for key, (before, now) in differences(old, self._flat).items():
      if not key.startswith(FREE_TRAINING_KEYS):
        problem = f"{key}: {now!r}, but {file.parent} was made with {before!r}"
        raise ConfigError(f"{problem}; expected the same, or another --workdir")

  def _record_start(self) -> None:
    """Writes what the training is made with."""
    file = self._folder.path / RECORD_FILE
    record = {"config": self._flat, "versions": versions(), "device": devices.describe()}
    try:
      atomic.write_bytes(file, (json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
      raise InputError(file, "", f"cannot be written ({reason(error)})") from None

  def _read_start(self) -> Weights | None:
    """The weights to start from."""
    if not self._recipe.weights:
      return None
    start = weights_folder.load_weights(pathlib.Path(self._recipe.weights))
    mine = self._recipe.architecture
    for name in ("patch", "stride", "width", "depth", "head_width", "registers", "facelift"):
      if getattr(start.architecture, name) != getattr(mine, name):
        there = getattr(start.architecture, name)
        problem = f"{getattr(mine, name)}, but the weights have {there}; expected the same"
        raise ConfigError(f"architecture.{name}: {problem}")
    return start

  def _load(self, key: str, text: str) -> Mixture:
    self._stop.check()
    return load_datasets(
      parse_datasets(key, text),
      self._recipe.architecture.image_size,
      held_out=key == "data.held_out",
      say=self.progress.line,
    )

  def _restore(self) -> tuple[TrainingState, int]:
    """The newest state on disk and its room for splats, or the first state."""
    state = first_state(self._recipe, self._start.parameters if self._start else None)
    template: dict[str, Any] = {"state": state, "capacity": np.zeros((), np.int64)}
    restored = self._checkpoints.restore(template)
    if restored is None:
      self._cut_metrics(0)
      return state, self._trainer.usual_capacity()
    step, saved = restored
    self.progress.line(f"Goes on at step {step} of {self._recipe.optimizer.steps}.")
    self._cut_metrics(step)
    return saved["state"], int(saved["capacity"])

  def _interval_done(self, interval: Interval, state: TrainingState) -> None:
    """Records, scores, saves and stops.

    Raises:
      Stopped: a signal came; the state is saved.
    """
    record, step = interval.record, interval.step
    self._check_skipped(interval)
    if interval.capacity != self._capacity:
      logging.warning(
        "step %d: up to %d splat-tile pairs had no room; steps of the interval with such images "
        "were not taken, and the next have %d in place of %d",
        *(step, int(record["overflow"]), interval.capacity, self._capacity),
      )
      self._capacity = interval.capacity
    speed = {"samples_per_second": interval.samples_per_second}
    self._append({"step": step, **record, **speed})
    note = f"loss {record['loss']:.4f}, {record.get('novel_fg_psnr', float('nan')):.2f} dB"
    self.progress.update_task(step, f"{note}, {interval.samples_per_second:.0f} samples/s")
    last = step >= self._recipe.optimizer.steps
    due = time.monotonic() - self._saved_at >= self._recipe.saving.seconds
    if last or due or self._stop.requested:
      self._save(step, state)
    if last or step % self._recipe.saving.evaluate_every < self._recipe.saving.every:
      self._score(step, state)
    if not last:
      self._stop.check()

  def _check_skipped(self, interval: Interval) -> None:
    """Tells of steps with a bad gradient.

    Raises:
      InputError: there was no other step, so the training would never move again.
    """
    skipped = int(interval.record["skipped"])
    if skipped == 0:
      return
    limit = self._recipe.optimizer.skip_above
    problem = f"the gradient of {skipped} of {interval.steps} steps was not finite or above {limit}"
    if skipped < interval.steps:
      logging.warning("step %d: %s; they were not taken", interval.step, problem)
      return
    expected = "expected a lower optimizer.rate, or other data or weights"
    raise InputError(self._folder.path, f"step {interval.step}", f"{problem}; {expected}")

  def _score(self, step: int, state: TrainingState) -> None:
    """Scores and shows the result so far on the held-out scenes."""
    if self._held_out is None:
      return
    scores = self._held_out.score(state.average, self._capacity)
    self._append({"step": step, **{f"held_out_{name}": x for name, x in scores.items()}})
    if "novel_iou" in scores:
      self.progress.line(
        f"step {step}: held-out scenes {scores['novel_fg_psnr']:.2f} dB, "
        f"IoU {scores['novel_iou']:.3f} in views that were no input"
      )
    file = self._folder.path / PICTURES_FILE
    try:
      pictures = self._held_out.pictures(state.average, self._capacity)
      atomic.write_bytes(file, images.encode_png(pictures))
    except OSError as error:
      logging.warning("%s: not written (%s)", file, reason(error))

  def _save(self, step: int, state: TrainingState) -> None:
    """Saves a checkpoint; the training continues if that fails."""
    capacity = np.array(self._capacity, np.int64)
    try:
      self._checkpoints.save(step, {"state": state, "capacity": capacity})
    except CheckpointError as error:
      logging.warning("%s; the training continues without this checkpoint", error)
    self._saved_at = time.monotonic()

  def _append(self, line: Mapping[str, float]) -> None:
    """Adds a line to the metrics and the curves; the training continues if that fails."""
    step = int(line["step"])
    self._curves.add_step(step, {name: x for name, x in line.items() if name != "step"})
    finite = {name: round(float(x), 6) for name, x in line.items() if np.isfinite(x)}
    try:
      with open(self._folder.metrics_file, "a", encoding="utf-8") as file:
        file.write(json.dumps({**finite, "step": step}) + "\n")
    except OSError as error:
      logging.warning("%s: not written (%s)", self._folder.metrics_file, reason(error))

  def _cut_metrics(self, step: int) -> None:
    """Removes lines of steps that a killed start took and did not save."""
    file = self._folder.metrics_file
    if not file.is_file():
      return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
      try:
        if json.loads(line)["step"] <= step:
          kept.append(line + "\n")
      except (ValueError, KeyError, TypeError):  # the last line of a killed process
        continue
    atomic.write_bytes(file, "".join(kept).encode())

  def _export(self, state: TrainingState) -> None:
    """Writes the mean of the parameters; weights to start from pass their licence on."""
    start = self._start
    source: dict[str, Any] = {
      "steps": int(state.step),
      "steps_not_taken": int(state.skipped) + int(state.overflowed),
      "batch": self._recipe.optimizer.batch,
      "datasets": self._recipe.data.datasets,
      "seed": self._recipe.seed,
    }
    if start:
      source["started_from"] = dict(start.source)
    weights = Weights(
      architecture=self._recipe.architecture,
      parameters=jax.device_get(state.average),
      source=source,
      license=start.license if start else "",
      notice=start.notice if start else "",
    )
    weights_folder.save_weights(self._output, weights, overwrite=True)
    self.progress.line(f"weights after {int(state.step)} steps in {self._output}")
