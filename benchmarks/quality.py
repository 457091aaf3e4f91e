"""Novel-view scores of the benchmark set: recipes, or variants of one, over scenes and seeds.

    python -m benchmarks.quality --config=2dgs --seeds=0,1,2 --batch=27 --entries=16
    python -m benchmarks.quality --config=2dgs,3dgs,plain_2dgs    recipes side by side
    python -m benchmarks.quality --config=2dgs,2dgs:photographs --folder=DATA/squirrel
    python -m benchmarks.quality --variant='sh1 fit.sh_degree=1' \
        --variant='loose hull.min_views=3 fit.dropout=0.1'    changes to the first recipe
    python -m benchmarks.quality --folder=DATA/spot,DATA/head     scene folders with input/, target/
    python -m benchmarks.quality --size=tiny --scenes=walk_black  a check on a CPU

Expected, on an H100, of walk_black: 2dgs 26.8 dB / .989, 3dgs 27.7 / .990, plain_2dgs 11.7 / .44;
docs/results.md has all scenes.

All scenes of a recipe are fitted together, `--batch` at a time. The scores are fg PSNR (dB) and IoU
of views that the fits were not made from, mean over scenes and seeds; the spread is the standard
deviation of the seeds' means. If $OUT is set, quality.json is written into it.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import mice, plain_recipe
from benchmarks.workload import report
from jaxsplat_mouse import canonical, metrics
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset import sources
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import initial_batch
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.run.batches import result_gaussians
from jaxsplat_mouse.run.config_files import load_config
from jaxsplat_mouse.run.fit_progress import make_driver
from jaxsplat_mouse.run.inexact_scenes import treat_scene
from jaxsplat_mouse.run.outputs import ViewGroup, canonical_groups
from jaxsplat_mouse.run.renders import drop_invisible, render_groups
from jaxsplat_mouse.run.scene_input import start_fit
from jaxsplat_mouse.run.settings import CheckpointSettings, Settings
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.threads import ordered_map
from jaxsplat_mouse.scene import Scene, Similarity, crop_shape, crop_views, stack_scenes
from jaxsplat_mouse.visual_hull.hull import HullConfig

# Image size in pixels, number of novel views, and changes that shrink a recipe with them.
SIZES: dict[str, tuple[int, int, dict[str, Any]]] = {
  "full": (512, 16, {}),
  "preview": (
    256,
    8,
    {"hull.resolution": 128, "fit.num_gaussians": 4000, "fit.iterations": 300},
  ),
  "tiny": (
    48,
    2,
    {
      "hull.resolution": 32,
      "fit.num_gaussians": 128,
      "fit.iterations": 10,
      "fit.relocate_every": 5,
      "fit.resolutions": (1,),
      "fit.stages": (),
      "fit.geometry_from": 0.0,
    },
  ),
}
_PLAIN = "plain_"
_SHRINKS_PLAIN = ("num_gaussians", "iterations", "tile_entries")
_CHECKPOINTS = CheckpointSettings(steps=0, seconds=0.0)
_SCORED_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
  """A scene in its canonical frame, and the true images at novel views.

  Attributes:
    name: of the scene.
    scene: its photographs.
    groups: view indices and canonical cameras of each image size of the truth.
    truth: straight RGBA (H, W, 4) in [0, 1] of each view.
    similarity: world -> canonical frame.
  """

  name: str
  scene: Scene
  groups: list[ViewGroup]
  truth: list[np.ndarray]
  similarity: Similarity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """A named configuration.

  Attributes:
    name: title of its column.
    fit: settings of the fit.
    hull: settings of the hull.
    plain: fitted by the loop of `plain_recipe` instead of the driver of runs.
  """

  name: str
  fit: FitConfig
  hull: HullConfig
  plain: bool = False


def make_recipe(name: str, config: str, changes: dict[str, Any]) -> Recipe:
  """Returns a recipe with some settings changed.

  Args:
    name: title of its column.
    config: name of a file of `configs/`, with its variant as `2dgs:photographs`; or `plain_2dgs` or
      `plain_3dgs`.
    changes: values by dotted key, `fit.x` or `hull.x`; a plain recipe takes only those that shrink
      it.

  Raises:
    ValueError: there is no such key.
  """
  if config.startswith(_PLAIN):
    fit = plain_recipe.plain_config(config.removeprefix(_PLAIN))
    wanted = {k.removeprefix("fit."): v for k, v in changes.items() if k.startswith("fit.")}
    known = {k: v for k, v in wanted.items() if k in _SHRINKS_PLAIN}
    return Recipe(name=name, fit=dataclasses.replace(fit, **known), hull=HullConfig(), plain=True)
  values = load_config(config)
  with values.unlocked():
    for key, value in changes.items():
      section, _, field = key.partition(".")
      if field not in values[section]:
        raise ValueError(f"{key}: no such key")
      values[section][field] = value
  settings = Settings.from_config(values)
  return Recipe(name=name, fit=settings.fit, hull=settings.hull)


def parse_variant(text: str) -> tuple[str, dict[str, Any]]:
  """Reads `NAME key=value ...` into a name and Python values by key."""
  name, *pairs = text.split()
  changes = {}
  for pair in pairs:
    key, _, value = pair.partition("=")
    try:
      changes[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      changes[key] = value
  return name, changes


def built_in_trial(name: str, size: int, views: int, cache: pathlib.Path | None) -> Trial:
  """Returns a case of the benchmark set.

  Args:
    name: of `mice.CASES`.
    size: width of all images, pixels.
    views: number of novel views.
    cache: a folder that stores the renders.
  """
  scene, truth = mice.make_case(name, size, views, cache)
  cameras = mice.novel_cameras(size, views)
  return canonical_trial(name, scene, [(np.arange(views), cameras)], list(truth))


def folder_trial(path: pathlib.Path) -> Trial:
  """Returns a scene folder with `input/` and `target/`, without views of its own cameras."""
  source = sources.find_sources(path)[0]
  scene, _ = sources.read_source(source)
  truth = sources.read_truth(source, scene)
  if truth is None:
    raise ValueError(f"{path}: no target/")
  groups, images = [], []
  for index, cameras in truth.groups:
    new = np.flatnonzero(~truth.seen[index])
    groups.append((np.arange(len(images), len(images) + len(new)), _pick(cameras, new)))
    images += [truth.rgba[i] for i in index[new]]
  return canonical_trial(path.name, scene, groups, images)


def _pick(cameras: Cameras, index: np.ndarray) -> Cameras:
  poses, intrinsics = np.asarray(cameras.world_to_camera), np.asarray(cameras.intrinsics)
  return dataclasses.replace(cameras, world_to_camera=poses[index], intrinsics=intrinsics[index])


def make_trials(
  scenes: Sequence[str],
  folders: Sequence[str],
  size: int,
  views: int,
  cache: str,
) -> list[Trial]:
  """Returns cases of the benchmark set, then scene folders.

  Args:
    scenes: names of `mice.CASES`.
    folders: paths of scene folders with `input/` and `target/`.
    size: width of the images of the cases, pixels.
    views: number of novel views of the cases.
    cache: a folder that stores the renders of the cases; empty for none.
  """
  store = pathlib.Path(cache) if cache else None
  cases = [built_in_trial(name, size, views, store) for name in scenes]
  return cases + [folder_trial(pathlib.Path(path)) for path in folders]


def canonical_trial(
  name: str, scene: Scene, groups: list[ViewGroup], truth: list[np.ndarray]
) -> Trial:
  """Moves a scene and the cameras of its truth into the canonical frame.

  Args:
    name: of the scene.
    scene: its photographs in the input frame.
    groups: view indices and cameras of each image size of the truth, in the input frame.
    truth: straight RGBA (H, W, 4) in [0, 1] of each view.
  """
  scene, similarity = canonical.canonicalize(scene)
  moved = canonical_groups(groups, similarity)
  return Trial(name=name, scene=scene, groups=moved, truth=truth, similarity=similarity)


def fit_trials(
  trials: Sequence[Trial],
  seeds: Sequence[int],
  recipe: Recipe,
  begin: Callable[[int, Gaussians], Gaussians] | None = None,
  least_shape: tuple[int, int] = (0, 0),
) -> tuple[list[Gaussians], float]:
  """Fits all trials as one batch with the driver of runs.

  Args:
    trials: the scenes.
    seeds: one for each.
    recipe: how to fit.
    begin: returns the Gaussians (N,) that a trial starts from, given its number and its Gaussians
      on the hull; by default the latter.
    least_shape: height and width that crops have at least; batches of one shape share a program.

  Returns:
    the visible splats of every trial, and the seconds that the fits took.
  """
  if recipe.plain:
    return _fit_plain(trials, seeds, recipe)
  treated = {id(t): treat_scene(t.scene, recipe.fit.inexact_from)[0] for t in _distinct(trials)}
  started = [
    start_fit(treated[id(trial)], recipe.fit, recipe.hull, seed)
    for trial, seed in zip(trials, seeds, strict=True)
  ]
  gaussians = [begin(i, g) if begin else g for i, (_, g) in enumerate(started)]
  height, width = crop_shape([scene for scene, _ in started])
  shape = max(height, least_shape[0]), max(width, least_shape[1])
  crops = [crop_views(scene, shape) for scene, _ in started]
  scenes, state = initial_batch(crops, gaussians, seeds, recipe.fit)
  clock = time.monotonic()
  done = make_driver(recipe.fit, _CHECKPOINTS).fit(scenes, state)
  seconds = time.monotonic() - clock
  return [result_gaussians(done.state, i) for i in range(len(trials))], seconds


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
  return list({id(trial): trial for trial in trials}.values())


def _fit_plain(
  trials: Sequence[Trial], seeds: Sequence[int], recipe: Recipe
) -> tuple[list[Gaussians], float]:
  """Does the same with the loop of the plain recipe, from random Gaussians."""
  shape = crop_shape([trial.scene for trial in trials])
  crops = stack_scenes([crop_views(trial.scene, shape) for trial in trials])
  clock = time.monotonic()
  batch = plain_recipe.fit_plain(crops, seeds, recipe.fit)
  one = lambda i: jax.tree.map(lambda leaf: leaf[i], batch)
  every = np.ones(recipe.fit.num_gaussians, bool)
  fits = [drop_invisible(one(i), every) for i in range(len(trials))]
  return fits, time.monotonic() - clock


def score(trial: Trial, gaussians: Gaussians, recipe: Recipe) -> dict[str, float]:
  """Returns mean fg PSNR and IoU of one fit at its novel views, and its number of splats.

  Args:
    trial: the scene.
    gaussians: (N,) of the fit.
    recipe: that it was fitted by.
  """
  width = float(filter_width(trial.scene, recipe.fit))
  rendered = render_groups(gaussians, trial.groups, width)
  return {**score_images(rendered, trial.truth), "splats": float(len(gaussians.means))}


def score_images(rendered: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
  """Returns mean fg PSNR and IoU of straight RGBA uint8 renders against RGBA in [0, 1]."""
  pairs = [(a / np.float32(255), b) for a, b in zip(rendered, truth, strict=True)]
  return {
    "fg_psnr": float(np.nanmean([metrics.fg_psnr(a, b) for a, b in pairs])),
    "iou": float(np.nanmean([metrics.iou(a[..., 3], b[..., 3]) for a, b in pairs])),
  }


def run(
  trials: Sequence[Trial], recipes: Sequence[Recipe], seeds: Sequence[int], batch: int
) -> Iterator[dict[str, Any]]:
  """Yields a row of scores for every recipe, scene and seed.

  Args:
    trials: the scenes.
    recipes: how to fit.
    seeds: of the fits.
    batch: scenes fitted together.

  Yields:
    `recipe`, `scene`, `seed`, `seconds`, `fg_psnr` (dB), `iou` and `splats`.
  """
  work = [(trial, seed) for seed in seeds for trial in trials]
  for recipe in recipes:
    for start in range(0, len(work), batch):
      part = work[start : start + batch]
      fits, seconds = fit_trials([t for t, _ in part], [s for _, s in part], recipe)
      fitted = list(zip(part, fits, strict=True))
      score_one = lambda one, recipe=recipe: score(one[0][0], one[1], recipe)
      for ((trial, seed), _), values in ordered_map(score_one, fitted, _SCORED_AT_ONCE):
        row = {"recipe": recipe.name, "scene": trial.name, "seed": seed}
        yield {**row, "seconds": seconds / len(part), **values}


def make_table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns fg PSNR / IoU by scene and recipe, and the mean of each recipe with its spread."""
  recipes, scenes = ([*dict.fromkeys(row[key] for row in rows)] for key in ("recipe", "scene"))
  lines = ["| scene | " + " | ".join(recipes) + " |", "| --- |" + " --- |" * len(recipes)]
  mean = lambda name, kept: float(np.mean([row[name] for row in kept]))
  for scene in scenes:
    kept = [[r for r in rows if (r["recipe"], r["scene"]) == (name, scene)] for name in recipes]
    cells = [f"{mean('fg_psnr', k):.2f} / {mean('iou', k):.4f}" for k in kept]
    lines.append(f"| {scene} | " + " | ".join(cells) + " |")
  cells = []
  for name in recipes:
    kept = [row for row in rows if row["recipe"] == name]
    by_seed = [
      mean("fg_psnr", [r for r in kept if r["seed"] == s]) for s in {r["seed"] for r in kept}
    ]
    cells.append(f"{mean('fg_psnr', kept):.2f} ± {np.std(by_seed):.2f} / {mean('iou', kept):.4f}")
  return "\n".join([*lines, "| **mean** | " + " | ".join(cells) + " |"])


def _main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  devices.set_up_cache()
  size, views, shrink = SIZES[given.size]
  if given.entries:
    shrink = {**shrink, "fit.tile_entries": given.entries}
  recipes = [make_recipe(name, name, shrink) for name in given.config]
  for text in given.variant:
    name, changes = parse_variant(text)
    recipes.append(make_recipe(name, given.config[0], {**shrink, **changes}))
  scenes = given.scenes or (() if given.folder else mice.CASES)
  trials = make_trials(scenes, given.folder, size, views, given.cache)
  rows = []
  for row in run(trials, recipes, [int(s) for s in given.seeds], given.batch):
    rows.append(row)
    print_row(row)
    report("quality", rows, device=devices.describe())
  print(make_table(rows))


def print_row(row: Mapping[str, Any]) -> None:
  """Prints one row of scores."""
  cells = (f"{k}={v:.4f}" if isinstance(v, float) else f"{v}" for k, v in row.items())
  print(" ".join(cells), flush=True)


def _define_flags() -> None:
  flags.DEFINE_list("config", ["2dgs"], "Recipes of configs/; variants change the first.")
  flags.DEFINE_multi_string("variant", [], "NAME key=value ...")
  flags.DEFINE_list("scenes", [], "Names of benchmarks/mice.py; all by default without --folder.")
  flags.DEFINE_list("folder", [], "Scene folders with input/ and target/.")
  flags.DEFINE_list("seeds", ["0"], "Seeds of the fits.")
  flags.DEFINE_enum("size", "full", list(SIZES), "How large everything is.")
  flags.DEFINE_integer("batch", 16, "Scenes fitted together.", 1)
  flags.DEFINE_float("entries", 0.0, "fit.tile_entries of every recipe; 0: its own.")
  flags.DEFINE_string("cache", "", "A folder that stores the rendered photographs.")


if __name__ == "__main__":
  _define_flags()
  app.run(_main)
