"""Batches of scenes that are fitted together; the plan of each is on disk until it is fitted.

The crops of a batch depend on its members and on earlier batches. So both are written to disk
before its fit begins, and a stopped run continues the same batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Collection, Sequence

import jax
from absl import logging

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import initial_batch
from jaxsplat_mouse.fit.loop import FitState
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.run.renders import drop_invisible
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.checkpoints import Checkpoints
from jaxsplat_mouse.runtime.threads import ordered_map
from jaxsplat_mouse.scene import Scene, crop_shape, crop_views

_BATCH_FILE = "batch.json"
_SHAPES_FILE = "shapes.json"
_FINE, _COARSE = 32, 64  # steps of crop sides, pixels
_CROPPED_AT_ONCE = 4  # copying releases the interpreter's lock
_MOST_WASTE = 1.7  # pixels of a crop over those needed, up to which an earlier shape is reused
_SCENE_BYTES_PER_GAUSSIAN = 16_000  # of the temporaries of one scene's step, generously
_MOST_SCENES = 64  # on one device

ImageShape = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPlan:
  """A batch before its scenes are read.

  Attributes:
    names: its scenes.
    folder: folder of its plan and its checkpoints.
    digests: hashes of the scenes' files when the batch was begun, by name; empty for a new batch.
    shape: height and width of its crops, pixels; None for a new batch.
    starts: scene -> the scene whose fit it starts from, see `frame_order`; empty where all scenes
      start from their hulls.
    fill: number of scenes that a smaller batch is filled up to, so that batches share programs.
  """

  names: tuple[str, ...]
  folder: pathlib.Path
  digests: dict[str, str] = dataclasses.field(default_factory=dict)
  shape: ImageShape | None = None
  starts: dict[str, str] = dataclasses.field(default_factory=dict)
  fill: int = 0

  def checkpoints(self) -> Checkpoints:
    """Returns the saved states of its fit."""
    return Checkpoints(self.folder / "states")


def auto_batch(num_gaussians: int) -> int:
  """Returns how many scenes fit together into the devices' memory."""
  return devices.items_in_memory(_SCENE_BYTES_PER_GAUSSIAN * num_gaussians, _MOST_SCENES)


def unfinished_plans(workdir: Workdir, names: Collection[str]) -> list[BatchPlan]:
  """Returns the batches of a stopped run whose scenes are all in `names`; deletes the others."""
  plans = []
  for folder in sorted(workdir.checkpoints.glob("*/")):
    try:
      value = json.loads((folder / _BATCH_FILE).read_text())
      digests, (height, width) = dict(value["digests"]), value["shape"]
      starts, fill = dict(value.get("starts", {})), int(value.get("fill", 0))
    except (OSError, ValueError, KeyError, TypeError):
      digests, height, width, starts, fill = {}, 0, 0, {}, 0
    if digests and set(digests) <= set(names):
      plans.append(
        BatchPlan(
          names=tuple(digests),
          folder=folder,
          digests=digests,
          shape=(int(height), int(width)),
          starts=starts,
          fill=fill,
        )
      )
    else:
      shutil.rmtree(folder, ignore_errors=True)
  return plans


def new_plans(workdir: Workdir, names: Sequence[str], size: int) -> list[BatchPlan]:
  """Divides scenes into batches of at most `size`, in their order.

  Args:
    workdir: has a folder for the checkpoints of each batch.
    names: the scenes.
    size: scenes of a batch.
  """
  groups = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
  return [
    BatchPlan(names=group, folder=workdir.checkpoints / _folder_name(group)) for group in groups
  ]


def _folder_name(names: Sequence[str]) -> str:
  return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def is_unchanged(plan: BatchPlan, scenes: Sequence[SceneInput]) -> bool:
  """Returns whether the files of a begun batch are the same as when it was begun."""
  return plan.digests == {one.source.name: one.digest for one in scenes}


def needed_shapes(scenes: Sequence[Scene]) -> tuple[ImageShape, ImageShape]:
  """Returns the smallest crops that hold a batch of scenes, in fine and in coarse steps."""
  return crop_shape(scenes, multiple=_FINE), crop_shape(scenes, multiple=_COARSE)


def choose_shape(
  workdir: Workdir, fine: ImageShape, coarse: ImageShape, only_batch: bool
) -> ImageShape:
  """Chooses the crops of a new batch; reuses those of an earlier batch if they are small enough.

  Every new shape compiles the programs of a fit again, which takes longer than some empty pixels.

  Args:
    workdir: contains the shapes of earlier batches in `shapes.json`, and gets the new one.
    fine: the smallest crop that the batch needs, see `needed_shapes`.
    coarse: the same in coarse steps.
    only_batch: the run has no other batch; its crops are then as tight as possible.

  Returns:
    height and width in pixels.
  """
  path = workdir.state / _SHAPES_FILE
  try:
    shapes = [(int(h), int(w)) for h, w in json.loads(path.read_text())]
  except (OSError, ValueError, TypeError):
    shapes = []
  most = _MOST_WASTE * fine[0] * fine[1]
  fitting = [s for s in shapes if s[0] >= fine[0] and s[1] >= fine[1] and s[0] * s[1] <= most]
  if fitting:
    return min(fitting, key=lambda s: (s[0] * s[1], s))
  shape = fine if only_batch else coarse
  with contextlib.suppress(OSError):
    atomic.write_bytes(path, json.dumps([*shapes, shape]).encode())
  return shape


def record_plan(plan: BatchPlan, prepared: Sequence[SceneInput], shape: ImageShape) -> None:
  """Writes the members and crops of a batch; a fit whose plan cannot be written runs all the same.

  A later run then starts that batch again.

  Args:
    plan: the batch.
    prepared: its scenes that could be prepared.
    shape: height and width of its crops, pixels.
  """
  value = {
    "digests": {p.source.name: p.digest for p in prepared},
    "shape": shape,
    "starts": plan.starts,
    "fill": plan.fill,
  }
  try:
    plan.folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(plan.folder / _BATCH_FILE, json.dumps(value).encode())
  except OSError as error:
    logging.warning("%s: no checkpoints of this batch (%s)", plan.folder, error.strerror)


def remove_plan(plan: BatchPlan) -> None:
  """Deletes the folder of a batch whose fits are all saved or have failed."""
  shutil.rmtree(plan.folder, ignore_errors=True)


def stack_batch(
  prepared: Sequence[SceneInput],
  config: FitConfig,
  shape: ImageShape | None = None,
  fill: int = 0,
) -> tuple[Scene, FitState]:
  """Crops prepared scenes around their silhouettes and stacks them.

  Args:
    prepared: B scenes in their canonical frames, with first Gaussians.
    config: the recipe.
    shape: height and width of the crops, pixels; as tight as possible by default.
    fill: the least B; the last scene is repeated until there are as many.

  Returns:
    the scenes (B, V, ...) and the state (B, ...) of their fits before the first step, as NumPy.
  """
  size = shape or crop_shape([p.scene for p in prepared], multiple=_FINE)
  crop = lambda one: crop_views(one.scene, size)
  crops = [scene for _, scene in ordered_map(crop, prepared, _CROPPED_AT_ONCE)]
  gaussians, seeds = [p.first_gaussians for p in prepared], [p.seed for p in prepared]
  crops, gaussians, seeds = (
    [*values, *values[-1:] * (fill - len(values))] for values in (crops, gaussians, seeds)
  )
  with devices.on_host():  # The driver sends parts of the batch to the devices.
    return initial_batch(crops, gaussians, seeds, config)


def result_gaussians(state: FitState, index: int) -> Gaussians:
  """Returns the Gaussians (N,) that a renderer shows of one scene of a fitted batch, as NumPy.

  Args:
    state: of the batch (B, ...), on the host.
    index: of the scene in the batch.
  """
  fitted, alive = jax.tree.map(lambda leaf: leaf[index], (state.result, state.alive))
  return drop_invisible(fitted, alive)
