"""A run small enough for tests: few pixels, Gaussians and steps; the same shapes everywhere."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
from ml_collections import ConfigDict

from configs import default
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene

IMAGE_SIZE = 36

# The same as a file, for commands: --config=FILE.
CONFIG_FILE = """
from tests.run_fixtures import tiny_config as get_config
"""


def tiny_config(data_input: str = "") -> ConfigDict:
  """Two scenes a batch, four chunks of five steps, a checkpoint after every chunk."""
  config = default.get_config()
  config.data.input = str(data_input)
  config.data.mouse_image_size = IMAGE_SIZE
  config.hull.resolution = 32
  config.fit.num_gaussians = 128
  config.fit.iterations = 20
  config.fit.relocate_every = 5
  config.fit.resolutions = (1,)
  config.fit.stages = ()
  config.fit.geometry_from = 0.0
  config.render.num_views = 4
  config.render.image_size = 32
  config.batch.scenes = "2"
  config.checkpoint.steps = 5
  config.checkpoint.seconds = 0.0
  config.report.quality = False
  return config


def write_mouse(folder: pathlib.Path, seed: int) -> pathlib.Path:
  """Six photographs of a built-in mouse as a scene folder."""
  cameras = input_cameras(image_size=IMAGE_SIZE)
  scene = make_scene(seed, cameras)
  rgba = np.concatenate([scene.images, scene.alphas[..., None]], -1)
  names = [f"images/cam_{i:03d}.png" for i in range(len(rgba))]
  (folder / "images").mkdir(parents=True)
  for name, view in zip(names, rgba, strict=True):
    (folder / name).write_bytes(images.encode_png((view * 255 + 0.5).astype(np.uint8)))
  camera_file.write_scene_cameras(folder, cameras, names)
  return folder


def write_mice(folder: pathlib.Path, count: int) -> pathlib.Path:
  """A folder of scenes `mouse_0` ..."""
  for seed in range(count):
    write_mouse(folder / f"mouse_{seed}", seed)
  return folder


def results(workdir: pathlib.Path) -> dict[str, str]:
  """Hash of every PLY, image and camera file that a run made, by path."""
  found = [*workdir.glob("fits/*/*.ply"), *workdir.glob("dataset/*/*.json")]
  found += workdir.glob("dataset/*/images/*.png")
  return {
    str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(found)
  }
