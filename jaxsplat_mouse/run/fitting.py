"""Fits one batch of scenes: chunk after chunk, with checkpoints, on all devices of the host.

A chunk starts from a state that it leaves as it is. So one that finds no memory or no room for its
splats is done again, and a run that was stopped goes on from the same bits: chunks begin and end on
whole relocation periods wherever a fit is stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from jaxsplat_mouse.fit.config import FitConfig, Stage, chunks
from jaxsplat_mouse.fit.loop import FitState, init_state, run_chunk
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.run.renders import credible, drop_invisible
from jaxsplat_mouse.run.settings import CheckpointSettings
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.checkpoints import CheckpointError, Checkpoints
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.runtime.threads import side_by_side
from jaxsplat_mouse.scene import Scene

_MORE_ROOM = 1.5
_MAX_GROWTHS = 6
_STEPS = 50
_STEPS_ON_ACCELERATORS = 250

run_chunk = Program(run_chunk, static=(2, 3, 4, 5))
_Steps = tuple[int, int, bool]  # see `fit.Stage.program`
OnChunk = Callable[[int, Mapping[str, np.ndarray]], None]


class FitError(RuntimeError):
  """A batch could not be fitted on this device, told in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
  """Scenes of one image shape that are fitted together, as NumPy.

  Attributes:
    scenes: (B, V, ...).
    gaussians: (B, N, ...) to start from.
    seeds: (B,) uint32.
  """

  scenes: Scene
  gaussians: Gaussians
  seeds: np.ndarray

  def __len__(self) -> int:
    """Number of scenes."""
    return len(self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
  """What came of a batch.

  Attributes:
    gaussians: what is visible of each scene's splats; None where the fit failed.
    losses: last total loss of each scene.
    failures: index of a scene to the reason why it failed.
    seconds: wall time of this process.
  """

  gaussians: list[Gaussians | None]
  losses: list[float]
  failures: dict[int, str]
  seconds: float


class Fitter:
  """Fits batches one after the other; what it learns about the device's memory it keeps."""

  def __init__(
    self,
    config: FitConfig,
    settings: CheckpointSettings,
    stop: StopRequest,
    compiler: BackgroundCompiler | None = None,
  ):
    """Takes the recipe, when to save, who asks to stop, and who compiles what comes later."""
    self._config = config
    self._compiler = compiler or BackgroundCompiler()
    self._settings = settings
    self._stop = stop
    self._at_once: int | None = None  # scenes on a device together, once memory was short

  @property
  def iterations(self) -> int:
    """Steps of a fit."""
    return self._config.iterations

  def fit(self, batch: Batch, checkpoints: Checkpoints | None, on_chunk: OnChunk) -> Fitted:
    """Fits a batch, going on from its newest checkpoint.

    Args:
      batch: the scenes.
      checkpoints: where the state is saved; None for nowhere.
      on_chunk: called with the iteration and the last step's metrics (B,) of every chunk.

    Raises:
      Stopped: a signal came; the state is saved.
      FitError: a single scene does not fit the device.
    """
    started = time.monotonic()
    loop = _Loop(self, batch, checkpoints)
    parts = chunks(self._config, self._settings.steps or _default_steps())
    parts = [part for part in parts if part.last > loop.iteration]
    loop.compile_ahead(parts)
    for chunk in parts:
      metrics = loop.advance(chunk)
      on_chunk(loop.iteration, metrics)
      if len(loop.failures) == len(batch):
        break
      if self._stop.requested and loop.iteration < self._config.iterations:
        loop.save()
        self._stop.check()
    return loop.result(time.monotonic() - started)


def _default_steps() -> int:
  """Steps of a chunk: a few seconds, beside which what the host does between two is little."""
  return _STEPS_ON_ACCELERATORS if devices.is_accelerator() else _STEPS


@dataclasses.dataclass
class _Group:
  """Some consecutive scenes of a batch on one device."""

  scenes: Scene
  state: FitState


class _Loop:
  """The state of one batch on its way."""

  def __init__(self, fitter: Fitter, batch: Batch, checkpoints: Checkpoints | None):
    self._fitter, self._batch, self._checkpoints = fitter, batch, checkpoints
    self._config = fitter._config
    views = batch.scenes.view_mask.shape[1]
    init = functools.partial(init_state, num_views=views, config=self._config)
    with devices.on_host():  # from where it goes to all devices
      state = jax.tree.map(np.asarray, jax.vmap(init)(batch.gaussians, batch.seeds))
    # The room for splats is saved too, so that a resumed fit runs the very same program.
    start = {"state": state, "tile_entries": np.array(self._config.tile_entries, np.float64)}
    restored = checkpoints.restore(start) if checkpoints else None
    self.iteration, saved = restored or (0, start)
    self._set_room(float(saved["tile_entries"]))
    self._groups = self._place(saved["state"])
    self._saved_at = time.monotonic()
    self._losses = np.full(len(batch), np.nan)
    self.failures: dict[int, str] = {}

  def _set_room(self, tile_entries: float) -> None:
    self._config = dataclasses.replace(self._config, tile_entries=tile_entries)

  def _place(self, state: FitState) -> list[_Group]:
    """Spreads a batch over the devices, in more groups than devices where memory asks for it."""
    devices, count = jax.local_devices(), len(self._batch)
    size = min(-(-count // len(devices)), self._fitter._at_once or count)
    groups: list[_Group] = []
    for i in range(0, count, size):
      take = lambda leaf, i=i: leaf[i : i + size]
      part = jax.tree.map(take, (self._batch.scenes, state))
      groups.append(_Group(*jax.device_put(part, devices[len(groups) % len(devices)])))
    return groups

  def _gather(self, part: Callable[[FitState], Any] = lambda state: state) -> Any:
    """The state of the whole batch on the host, or a part of it."""
    parts = jax.device_get([part(group.state) for group in self._groups])
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

  def compile_ahead(self, chunks: Sequence[Stage]) -> None:
    """Has all programs of a fit compiled but the very first, which this thread is about to run."""
    programs = dict.fromkeys(self._program(chunk) for chunk in chunks)
    together = self._groups[: len(jax.local_devices())]
    todo = [(group, program) for program in programs for group in together]
    for group, program in todo[1:]:
      args = (group.state, group.scenes, self._config, *program)
      self._fitter._compiler.start(run_chunk, *args)

  def _program(self, chunk: Stage) -> _Steps:
    """What is left to do of a chunk."""
    return dataclasses.replace(chunk, first=max(chunk.first, self.iteration)).program

  def advance(self, chunk: Stage) -> dict[str, np.ndarray]:
    """Runs to the end of a chunk; the last step's metrics (B,)."""
    for _ in range(_MAX_GROWTHS):
      states, metrics = self._run(self._program(chunk))
      dropped = max(int(jax.device_get(state.overflow).max()) for state in states)
      if dropped == 0:
        break
      self._set_room(self._config.tile_entries * _MORE_ROOM)
      logging.info(
        "%d splat-tile pairs found no room: fit.tile_entries is now %g, the chunk runs again",
        dropped,
        self._config.tile_entries,
      )
    else:
      logging.warning("%d splat-tile pairs left out of a fit", dropped)
    for group, state in zip(self._groups, states, strict=True):
      group.state = state
    self.iteration = chunk.last
    self._note_failures(metrics["loss"])
    if time.monotonic() - self._saved_at >= self._fitter._settings.seconds:
      self.save()
    return metrics

  def _note_failures(self, losses: np.ndarray) -> None:
    for i in np.flatnonzero(~np.isfinite(losses)):
      reason = f"the loss became {losses[i]} by iteration {self.iteration}"
      self.failures.setdefault(int(i), reason)
    self._losses = losses

  def _run(self, program: _Steps) -> tuple[list[FitState], dict[str, np.ndarray]]:
    """One chunk of every group, from its state as it stands; all devices work at once."""
    while True:
      try:
        return self._try(program)
      except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
          raise
      self._halve()

  def _try(self, program: _Steps) -> tuple[list[FitState], dict[str, np.ndarray]]:
    states, records = [], []
    together = len(jax.local_devices())
    run = functools.partial(self._run_group, program=program)
    for first in range(0, len(self._groups), together):
      # Not more than one group on a device: their temporaries would not fit together.
      for state, metrics in side_by_side(run, self._groups[first : first + together]):
        states.append(state)
        records.append(metrics)
    join = lambda *leaves: np.concatenate([leaf[:, -1] for leaf in leaves])
    return states, jax.tree.map(join, *jax.device_get(records))

  def _run_group(self, group: _Group, program: _Steps) -> tuple[FitState, dict[str, jax.Array]]:
    args = (group.state, group.scenes, self._config, *program)
    with jax.transfer_guard("disallow"):
      return jax.block_until_ready(run_chunk(*args))

  def _halve(self) -> None:
    """Goes on with half as many scenes on a device."""
    size = len(self._groups[0].state.step)
    if size == 1:
      raise FitError(
        "out of device memory with a single scene; expected smaller fit.num_gaussians or images"
      )
    self._fitter._at_once = size // 2
    logging.warning("out of device memory with %d scenes at once; now %d", size, size // 2)
    state = self._gather()
    self._groups = []
    self._groups = self._place(state)

  def save(self) -> None:
    """Saves the state; where that fails the fit goes on without."""
    if self._checkpoints is None:
      return
    tile_entries = np.array(self._config.tile_entries, np.float64)
    state = {"state": self._gather(), "tile_entries": tile_entries}
    try:
      self._checkpoints.save(self.iteration, state)
    except CheckpointError as error:
      logging.warning("%s; going on without", error)
    self._saved_at = time.monotonic()

  def result(self, seconds: float) -> Fitted:
    """The visible splats of every scene that came through."""
    gaussians: list[Gaussians | None] = []
    shown = self._gather(lambda state: (state.result, state.alive))
    for i in range(len(self._batch)):
      one = jax.tree.map(lambda leaf, i=i: leaf[i], shown)
      if i not in self.failures and not _all_finite(one[0]):
        self.failures[i] = "some Gaussians are not finite"
      gaussians.append(None if i in self.failures else self._shown(i, *one))
    return Fitted(
      gaussians=gaussians,
      losses=[float(x) for x in self._losses],
      failures=self.failures,
      seconds=seconds,
    )

  def _shown(self, index: int, gaussians: Gaussians, alive: np.ndarray) -> Gaussians:
    """What is kept of one scene's splats."""
    if self._config.cull:
      scene = jax.tree.map(lambda leaf: leaf[index], self._batch.scenes)
      alive = credible(gaussians, alive, scene)
    return drop_invisible(gaussians, alive)


def _all_finite(tree: Any) -> bool:
  return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
