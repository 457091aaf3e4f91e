"""Drives fits from their state to their last step: the one loop over chunks of steps.

A chunk starts from a state that it leaves as it is. So a chunk that finds no memory or no room for
its splats runs again, and a fit that was stopped goes on from the same bits: chunks begin and end
on whole relocation periods. Between two chunks the driver calls its `FitCallbacks`, which show
progress, save snapshots and stop the fit; nothing here touches disk, clocks or signals.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.inexact_fits import config_for, without_flags
from jaxsplat_mouse.fit.loop import FitState, init_state, run_chunk
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.fit.schedule import Stage, chunks
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.gaussians import Gaussians, mask
from jaxsplat_mouse.scene import Scene, crop_shape, crop_views, stack_scenes

_MORE_ROOM = 1.5
_MAX_GROWTHS = 6
_CHUNK_STEPS = 250  # a few seconds on a GPU: little beside it is what the host does in between

Metrics = Mapping[str, np.ndarray]
Shard = tuple[Scene, FitState]  # consecutive scenes of a batch on one device


class FitError(RuntimeError):
  """A batch could not be fitted on this device, in one line."""


class ChunkProgram(Protocol):
  """`loop.run_chunk`, or the same compiled and kept elsewhere."""

  def __call__(
    self,
    state: FitState,
    scenes: Scene,
    config: FitConfig,
    resolution: int,
    num_steps: int,
    geometry: bool,
    /,
  ) -> tuple[FitState, dict[str, jax.Array]]:
    """Steps a batch of scenes together."""


class SideBySide(Protocol):
  """Calls a function for each of several shards; the results keep the order of the shards."""

  def __call__(self, function: Callable[[Shard], Any], shards: Sequence[Shard], /) -> list[Any]:
    """Returns what the function returns for every shard."""


def one_after_the_other(function: Callable[[Shard], Any], shards: Sequence[Shard]) -> list[Any]:
  """Runs shards in this thread, which keeps one device busy."""
  return [function(shard) for shard in shards]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
  """All that a fit needs to go on from where it stands.

  Attributes:
    state: of the batch (B, ...), as NumPy.
    tile_entries: the room that splats have needed so far (`FitConfig.tile_entries`): a fit that
      goes on must run the very same program.
  """

  state: FitState
  tile_entries: float


class FitCallbacks:
  """What happens between the chunks of a fit; every method may be overridden."""

  def chunk_done(self, iteration: int, metrics: Metrics, snapshot: Callable[[], Snapshot]) -> None:
    """A batch has reached an iteration; an exception raised here ends the fit.

    Args:
      iteration: steps done.
      metrics: the last step's losses (B,) by name.
      snapshot: returns the state of the batch on the host.
    """

  def will_run(self, arguments: Sequence[tuple[Any, ...]]) -> None:
    """The arguments of every later call of the chunk program whose shapes are new."""

  def room_grew(self, dropped: int, tile_entries: float) -> None:
    """Splat-tile pairs found no room; the chunk runs again with room for `tile_entries`."""

  def pairs_dropped(self, dropped: int) -> None:
    """Splat-tile pairs are left out of the fit, although the room grew as far as it may."""
    warnings.warn(f"{dropped} splat-tile pairs are left out of a fit", stacklevel=2)

  def memory_short(self, scenes: int, scenes_at_once: int) -> None:
    """The device has no memory for `scenes` scenes; the fit goes on with `scenes_at_once`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchFit:
  """What came of a batch.

  Attributes:
    state: (B, ...) after the last step, as NumPy.
    losses: (B, steps) total loss of the steps that this call took.
    failures: index of a scene to the reason why its fit failed.
  """

  state: FitState
  losses: np.ndarray
  failures: dict[int, str]


class FitDriver:
  """Fits batches one after the other and remembers how many scenes a device holds.

  Attributes:
    config: the recipe.
  """

  def __init__(
    self,
    config: FitConfig,
    *,
    chunk_steps: int = _CHUNK_STEPS,
    program: ChunkProgram = run_chunk,
    side_by_side: SideBySide = one_after_the_other,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Takes the recipe and the means.

    Args:
      config: the recipe.
      chunk_steps: most steps between two callbacks.
      program: steps a batch; `loop.run_chunk` by default.
      side_by_side: calls the program for the shards of several devices.
      devices: the devices of this host to use; all local devices by default.
    """
    self.config = config
    self._chunk_steps, self._program, self._side_by_side = chunk_steps, program, side_by_side
    self._devices = devices
    self._scenes_at_once: int | None = None  # on a device, once memory was short

  def fit(
    self,
    scenes: Scene,
    start: FitState | Snapshot,
    callbacks: FitCallbacks | None = None,
  ) -> BatchFit:
    """Fits a batch from a state, at any step, to the last step.

    Args:
      scenes: (B, V, ...) of one image shape, as NumPy.
      start: the state (B, ...), or a snapshot of an earlier call.
      callbacks: what happens between chunks; nothing by default.

    Returns:
      the state after the last step.

    Raises:
      FitError: a single scene does not fit the device.
    """
    return _BatchLoop(self, scenes, start, callbacks or FitCallbacks()).run()


class _BatchLoop:
  """One batch on its way."""

  def __init__(
    self,
    driver: FitDriver,
    scenes: Scene,
    start: FitState | Snapshot,
    callbacks: FitCallbacks,
  ):
    self._driver, self._scenes, self._callbacks = driver, scenes, callbacks
    self._config = config_for(scenes, driver.config)
    if isinstance(start, Snapshot):
      self._set_room(start.tile_entries)
      start = start.state
    self._count = len(start.step)
    self._iteration = int(np.max(start.step))
    self._devices = list(driver._devices or jax.local_devices())
    self._shards = self._place(start)
    self._losses: list[np.ndarray] = []
    self._failures: dict[int, str] = {}

  def run(self) -> BatchFit:
    """Takes all steps that are left."""
    left = [c for c in chunks(self._config, self._driver._chunk_steps) if c.last > self._iteration]
    self._announce(left)
    for chunk in left:
      metrics = self._advance(chunk)
      self._callbacks.chunk_done(self._iteration, metrics, self._snapshot)
      if len(self._failures) == self._count:
        break
    state = self._gather()
    self._note_broken_splats(state)
    losses = np.concatenate(self._losses, -1) if self._losses else np.zeros((self._count, 0))
    return BatchFit(state=state, losses=losses, failures=self._failures)

  def _set_room(self, tile_entries: float) -> None:
    self._config = dataclasses.replace(self._config, tile_entries=tile_entries)

  def _place(self, state: FitState) -> list[Shard]:
    """Spreads a batch over the devices, in more shards than devices where memory is short."""
    size = -(-self._count // len(self._devices))
    size = min(size, self._driver._scenes_at_once or self._count)
    shards: list[Shard] = []
    for i in range(0, self._count, size):
      part = jax.tree.map(lambda leaf, i=i: leaf[i : i + size], (self._scenes, state))
      shards.append(jax.device_put(part, self._devices[len(shards) % len(self._devices)]))
    return shards

  def _gather(self) -> FitState:
    """The state of the whole batch on the host."""
    parts = jax.device_get([state for _, state in self._shards])
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

  def _snapshot(self) -> Snapshot:
    return Snapshot(state=self._gather(), tile_entries=self._config.tile_entries)

  def _announce(self, left: Sequence[Stage]) -> None:
    """Names all programs but the very first, which this thread is about to run."""
    programs = dict.fromkeys(self._program_of(chunk) for chunk in left)
    together = self._shards[: len(self._devices)]
    calls = [
      (state, scenes, self._config, *program) for program in programs for scenes, state in together
    ]
    self._callbacks.will_run(calls[1:])

  def _program_of(self, chunk: Stage) -> tuple[int, int, bool]:
    """Static arguments for what is left to do of a chunk."""
    return dataclasses.replace(chunk, first=max(chunk.first, self._iteration)).program

  def _advance(self, chunk: Stage) -> dict[str, np.ndarray]:
    """Runs to the end of a chunk; the last step's losses (B,)."""
    for _ in range(_MAX_GROWTHS):
      states, metrics = self._run_chunk(self._program_of(chunk))
      dropped = max(int(jax.device_get(state.overflow).max()) for state in states)
      if dropped == 0:
        break
      self._set_room(self._config.tile_entries * _MORE_ROOM)
      self._callbacks.room_grew(dropped, self._config.tile_entries)
    else:
      self._callbacks.pairs_dropped(dropped)
    self._shards = [
      (scenes, state) for (scenes, _), state in zip(self._shards, states, strict=True)
    ]
    self._iteration = chunk.last
    self._losses.append(metrics["loss"])
    last = {name: values[:, -1] for name, values in metrics.items()}
    for i in np.flatnonzero(~np.isfinite(last["loss"])):
      reason = f"the loss became {last['loss'][i]} by iteration {self._iteration}"
      self._failures.setdefault(int(i), reason)
    return last

  def _run_chunk(self, program: tuple[int, int, bool]) -> tuple[list[FitState], dict[str, Any]]:
    """One chunk of every shard, from its state as it stands; all devices work at once."""
    while True:
      try:
        return self._try_chunk(program)
      except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
          raise
      self._halve()

  def _try_chunk(self, program: tuple[int, int, bool]) -> tuple[list[FitState], dict[str, Any]]:
    states, records = [], []
    together = len(self._devices)
    run = functools.partial(self._run_shard, program=program)
    for first in range(0, len(self._shards), together):
      # At most one shard on a device at a time: their temporaries would not fit together.
      for state, metrics in self._driver._side_by_side(run, self._shards[first : first + together]):
        states.append(state)
        records.append(metrics)
    join = lambda *leaves: np.concatenate(leaves)
    return states, jax.tree.map(join, *jax.device_get(records))

  def _run_shard(
    self, shard: Shard, program: tuple[int, int, bool]
  ) -> tuple[FitState, dict[str, jax.Array]]:
    scenes, state = shard
    with jax.transfer_guard("disallow"):
      done = self._driver._program(state, scenes, self._config, *program)
      return jax.block_until_ready(done)

  def _halve(self) -> None:
    """Goes on with half as many scenes on a device."""
    size = len(self._shards[0][1].step)
    if size == 1:
      raise FitError(
        "out of device memory with a single scene; expected smaller fit.num_gaussians or images"
      )
    self._driver._scenes_at_once = size // 2
    self._callbacks.memory_short(size, size // 2)
    state = self._gather()
    self._shards = []
    self._shards = self._place(state)

  def _note_broken_splats(self, state: FitState) -> None:
    for i in range(self._count):
      leaves = jax.tree.leaves(jax.tree.map(lambda leaf, i=i: leaf[i], state.result))
      if i not in self._failures and not all(np.isfinite(leaf).all() for leaf in leaves):
        self._failures[i] = "some Gaussians are not finite"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
  """What came of one scene.

  Attributes:
    gaussians: (N,) in the scene's frame, as NumPy.
    losses: (iterations,) total loss by step.
    filter_width: world units; `render` with it shows the Gaussians as the fit saw them.
  """

  gaussians: Gaussians
  losses: np.ndarray
  filter_width: float


def initial_batch(
  scenes: Sequence[Scene], gaussians: Sequence[Gaussians], seeds: Sequence[int], config: FitConfig
) -> tuple[Scene, FitState]:
  """Stacks cropped scenes and their first Gaussians into a batch.

  Args:
    scenes: B scenes (V, H, W, ...) of one image shape; view counts may differ.
    gaussians: B times (N,).
    seeds: B seeds of 32 bits.
    config: the recipe.

  Returns:
    the scenes (B, V, ...) and the state (B, ...) before the first step, as NumPy.
  """
  stack = without_flags(stack_scenes(scenes), config)
  first = jax.tree.map(lambda *leaves: np.stack(leaves), *gaussians)
  start = functools.partial(
    init_state, num_views=stack.view_mask.shape[1], config=config_for(stack, config)
  )
  state = jax.vmap(start)(first, np.array(seeds, np.uint32))
  return stack, jax.tree.map(np.asarray, state)


def fit_scenes(
  scenes: Iterable[Scene], config: FitConfig | None = None, seed: int = 0
) -> list[Fit]:
  """Fits several scenes as one batch, cropped to one shape.

  Args:
    scenes: in their canonical frames; view counts may differ.
    config: the recipe; `FitConfig()` by default.
    seed: scene i draws its random numbers from seed + i.

  Returns:
    one fit for every scene.

  Raises:
    ValueError: a scene's silhouettes admit no common solid; the message names the scene.
    FitError: a fit failed, or a single scene does not fit the device.
  """
  config = config or FitConfig()
  given = list(scenes)
  seeds = [seed + i for i in range(len(given))]
  started = []
  for i, scene in enumerate(given):
    try:
      started.append(start_on_hull(scene, config, seed=seeds[i]))
    except ValueError as error:
      raise ValueError(f"scene {i}: {error}; check its cameras and masks") from None
  shape = crop_shape([scene for scene, _ in started])
  crops = [crop_views(scene, shape) for scene, _ in started]
  batch, state = initial_batch(crops, [gaussians for _, gaussians in started], seeds, config)
  done = FitDriver(config).fit(batch, state)
  for i, reason in done.failures.items():
    raise FitError(f"scene {i}: {reason}")
  shown = jax.tree.map(np.asarray, jax.vmap(mask)(done.state.result, done.state.alive))
  return [
    Fit(
      gaussians=jax.tree.map(lambda leaf, i=i: leaf[i], shown),
      losses=done.losses[i],
      filter_width=float(filter_width(scene, config)),
    )
    for i, scene in enumerate(given)
  ]


def fit_scene(scene: Scene, config: FitConfig | None = None, seed: int = 0) -> Fit:
  """Fits one scene in its canonical frame; see `fit_scenes`."""
  return fit_scenes([scene], config, seed)[0]
