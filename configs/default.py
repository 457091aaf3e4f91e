"""Every setting and its default; the other configs choose a model.

    python -m jaxsplat_mouse.main --config=2dgs --config.KEY=VALUE

`jaxsplat_mouse.fit.config.FitConfig` and `jaxsplat_mouse.visual_hull.hull.HullConfig` hold the
defaults of `fit.*` and `hull.*` and explain them, because the Python API uses them too;
`jaxsplat_mouse.fit.recipes` holds the recipes of the models.
"""

import dataclasses

from ml_collections import ConfigDict

from jaxsplat_mouse.fit import recipes
from jaxsplat_mouse.visual_hull.hull import HullConfig


def get_config(variant: str = "") -> ConfigDict:
  return make_config("2dgs", variant)


def make_config(model: str, variant: str = "") -> ConfigDict:
  """Returns the configuration of a model; `variant` is what follows the colon of --config."""
  config = ConfigDict()
  config.seed = 0
  set_input(config)
  config.hull = ConfigDict(dataclasses.asdict(HullConfig()))
  del config.hull.num_points  # as many as Gaussians
  config.fit = ConfigDict(dataclasses.asdict(recipes.fit_recipe(model, variant)))
  set_output(config)
  set_run(config)
  if variant == "preview":
    shrink(config)
  return config


def set_input(config: ConfigDict) -> None:
  config.data = ConfigDict()
  # A scene folder, a folder of scene folders, or a list file; empty for the built-in mouse.
  config.data.input = ""
  # I/N, from 0/N to N-1/N: this run does every N-th scene, or every N-th stretch of a recording
  # where fit.warm_start is on. N runs share one workdir, as the tasks of a Slurm array:
  # --config.data.shard=$SLURM_ARRAY_TASK_ID/8 with --array=0-7.
  config.data.shard = ""
  # Canonical frame: one scale per "scene", one per "recording", or "none" to keep the input frame.
  config.data.normalize = "scene"
  # The animal's radius in the canonical frame (FaceLift sees +-0.91), and the input's up axis:
  # "+z", another signed axis, or "cameras" for the one that the cameras agree on.
  config.data.radius = 0.85
  config.data.up = "+z"
  # How many different built-in mice there are where `input` is empty, and their image size.
  config.data.mice = 1
  config.data.mouse_image_size = 512


def set_output(config: ConfigDict) -> None:
  # The views that are written: FaceLift's orbit. Degrees, world units, pixels.
  config.render = ConfigDict()
  config.render.num_views = 32
  config.render.elevation = 20.0
  config.render.distance = 2.7
  config.render.fov = 50.0
  config.render.image_size = 512

  config.dataset = ConfigDict()
  # Share of the scenes in val.txt; whole recordings go to one side.
  config.dataset.val_fraction = 0.1
  # zlib level 0 to 9.
  config.dataset.png_level = 1
  # The licence that the dataset card names, as CC-BY-4.0.
  config.dataset.license = ""
  # Scenes with a metric of the manifest beyond one of these bounds are written, but left out of the
  # lists: min_METRIC or max_METRIC. These let through everything but fits that have gone astray.
  config.dataset.gate = ConfigDict()
  config.dataset.gate.min_input_iou = 0.5
  config.dataset.gate.min_input_fg_psnr = 8.0


def set_run(config: ConfigDict) -> None:
  """What may change between two runs of one workdir."""
  config.batch = ConfigDict()
  # Scenes fitted together: a number, or "auto" from the device's memory.
  config.batch.scenes = "auto"

  config.execution = ConfigDict()
  # Where batches run: "local", on all devices of this machine, or "ray", spread over a cluster
  # whose machines all see the workdir and the input at the same paths.
  config.execution.engine = "local"
  # Of the Ray cluster; empty for $RAY_ADDRESS or, without it, this machine. Workers: 0 for as many
  # as the cluster has GPUs.
  config.execution.address = ""
  config.execution.workers = 0

  config.checkpoint = ConfigDict()
  # Steps between two moments at which a fit can stop (0: 50 on a CPU, 250 elsewhere), and the least
  # seconds between two savings.
  config.checkpoint.steps = 0
  config.checkpoint.seconds = 20.0

  config.report = ConfigDict()
  # Write one picture per scene: inputs, renders, depth, normals.
  config.report.contact_sheets = True
  # Score every fit without held-out views: `quality_*` in the manifest, for `dataset.gate`.
  config.report.quality = True
  # Write an MP4 of each scene turning once (extra `video`), and curves for TensorBoard (extra
  # `tensorboard`): WORKDIR/report/turntables, WORKDIR/tensorboard.
  config.report.turntable = False
  config.report.tensorboard = False


def shrink(config: ConfigDict) -> None:
  """Shrinks what surrounds the fit for a quick look."""
  config.data.mouse_image_size = recipes.PREVIEW_IMAGE_SIZE
  config.hull.resolution = recipes.PREVIEW_HULL_RESOLUTION
  config.render.image_size = recipes.PREVIEW_IMAGE_SIZE
  config.report.quality = False
