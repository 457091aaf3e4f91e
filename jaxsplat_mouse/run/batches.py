"""Which scenes are fitted together, kept on disk until all of them are.

What a batch's crops are depends on its members and on the batches before it. So both are written
down before its fit begins, and a run that was stopped takes up the same batch again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from absl import logging

from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.run.fitting import Batch
from jaxsplat_mouse.run.scene_input import Loaded, Prepared
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.checkpoints import Checkpoints
from jaxsplat_mouse.scene import Scene, crop_shape, crop_views, stack_scenes

_BATCH_FILE = "batch.json"
_SHAPES_FILE = "shapes.json"
_FINE, _COARSE = 32, 64  # steps of crop sides, pixels
_CROPPED_AT_ONCE = 4  # copying lets other threads run
_MOST_WASTE = 1.7  # pixels of a crop over those needed, up to which an earlier shape will do

_SCENE_BYTES_PER_GAUSSIAN = 16_000  # of the temporaries of one scene's step, generously
_MOST_SCENES = 64  # on one device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A batch before its scenes are read.

  Attributes:
    names: its scenes.
    folder: of its checkpoints.
    digests: of the scenes when the batch was begun, by name; empty for a new one.
    shape: height and width of its crops; None for a new one.
  """

  names: tuple[str, ...]
  folder: pathlib.Path
  digests: dict[str, str] = dataclasses.field(default_factory=dict)
  shape: tuple[int, int] | None = None

  def checkpoints(self) -> Checkpoints:
    """Its states."""
    return Checkpoints(self.folder / "states")


def auto_batch(num_gaussians: int) -> int:
  """Returns how many scenes to fit together: as many as the devices' memory holds."""
  return devices.items_in_memory(_SCENE_BYTES_PER_GAUSSIAN * num_gaussians, _MOST_SCENES)


def begun(workdir: Workdir, names: Collection[str]) -> list[Plan]:
  """Batches that a stopped run left, made of scenes in `names`; others are deleted."""
  plans = []
  for folder in sorted(workdir.checkpoints.glob("*/")):
    try:
      value = json.loads((folder / _BATCH_FILE).read_text())
      digests, (height, width) = dict(value["digests"]), value["shape"]
    except (OSError, ValueError, KeyError, TypeError):
      digests, height, width = {}, 0, 0
    if digests and set(digests) <= set(names):
      shape = (int(height), int(width))
      plans.append(Plan(names=tuple(digests), folder=folder, digests=digests, shape=shape))
    else:
      shutil.rmtree(folder, ignore_errors=True)
  return plans


def new(workdir: Workdir, names: Sequence[str], size: int) -> list[Plan]:
  """Cuts scenes into batches of at most `size`, in their order."""
  groups = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
  return [Plan(names=group, folder=workdir.checkpoints / _folder_name(group)) for group in groups]


def _folder_name(names: Sequence[str]) -> str:
  return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def is_unchanged(plan: Plan, scenes: Sequence[Loaded | Prepared]) -> bool:
  """Whether the scenes of a batch that was begun are still what they were."""
  return plan.digests == {one.source.name: one.digest for one in scenes}


def choose_shape(workdir: Workdir, scenes: Sequence[Scene], alone: bool) -> tuple[int, int]:
  """Height and width of a new batch's crops: those of an earlier batch where they will do.

  Every shape is compiled once, which costs more than some empty pixels.

  Args:
    workdir: remembers the shapes.
    scenes: the batch, in any frames.
    alone: the run has no other batch; then the crops are as tight as they can be.
  """
  return pick_shape(workdir, *needed_shapes(scenes), alone)


def needed_shapes(scenes: Sequence[Scene]) -> tuple[tuple[int, int], tuple[int, int]]:
  """The least crops that a batch needs, in small and in large steps."""
  return crop_shape(scenes, multiple=_FINE), crop_shape(scenes, multiple=_COARSE)


def pick_shape(
  workdir: Workdir, needed: tuple[int, int], coarse: tuple[int, int], alone: bool
) -> tuple[int, int]:
  """As `choose_shape`, from what `needed_shapes` gave."""
  path = workdir.state / _SHAPES_FILE
  try:
    shapes = [(int(h), int(w)) for h, w in json.loads(path.read_text())]
  except (OSError, ValueError, TypeError):
    shapes = []
  most = _MOST_WASTE * needed[0] * needed[1]
  fitting = [s for s in shapes if s[0] >= needed[0] and s[1] >= needed[1] and s[0] * s[1] <= most]
  if fitting:
    return min(fitting, key=lambda s: (s[0] * s[1], s))
  shape = needed if alone else coarse
  with contextlib.suppress(OSError):
    atomic.write_bytes(path, json.dumps([*shapes, shape]).encode())
  return shape


def begin(plan: Plan, prepared: Sequence[Prepared], shape: tuple[int, int]) -> None:
  """Writes a batch's members down; where that fails the fit goes on and cannot be taken up."""
  value = {"digests": {p.source.name: p.digest for p in prepared}, "shape": shape}
  try:
    plan.folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(plan.folder / _BATCH_FILE, json.dumps(value).encode())
  except OSError as error:
    logging.warning("%s: no checkpoints of this batch (%s)", plan.folder, error.strerror)


def end(plan: Plan) -> None:
  """Forgets a batch whose fits are all saved or have failed."""
  shutil.rmtree(plan.folder, ignore_errors=True)


def stack(prepared: Sequence[Prepared], shape: tuple[int, int] | None = None) -> Batch:
  """Crops scenes around their silhouettes, by default tightly, and stacks them."""
  size = shape or crop_shape([p.scene for p in prepared], multiple=_FINE)
  with ThreadPoolExecutor(_CROPPED_AT_ONCE, "cropper") as threads:
    crops = list(threads.map(lambda one: crop_views(one.scene, size), prepared))
  return Batch(
    scenes=stack_scenes(crops),
    gaussians=jax.tree.map(lambda *leaves: np.stack(leaves), *[p.gaussians for p in prepared]),
    seeds=np.array([p.seed for p in prepared], np.uint32),
  )
