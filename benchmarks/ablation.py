"""Ablations: the default recipe with one thing changed at a time, over scenes and seeds.

    python -m benchmarks.ablation --config=2dgs --folder=DATA/spot,DATA/head
    python -m benchmarks.ablation --config=2dgs --part=0/4           every fourth change of the list
    python -m benchmarks.ablation --table=OUT/ablation_2dgs_0.json,OUT/ablation_2dgs_1.json,...
    python -m benchmarks.ablation --size=tiny --seeds=0,1 --only='no dropout'   a check on a CPU

Expected of the first: docs/results.md has the table; "no opacity pressure" loses 4.1 dB, all other
changes less than 1 dB.

Novel-view fg PSNR (dB) as in `quality.py`, mean and standard deviation over the seeds, by scene.
The last column is the change of the mean over the scenes against the unchanged recipe with the same
seed, and its standard deviation over the seeds. If $OUT is set, ablation_CONFIG_PART.json is
written into it; `--table` joins such files.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import quality
from benchmarks.workload import report
from jaxsplat_mouse.runtime import devices

BASE = "default"
_ROOM = {"fit.tile_entries": 16.0}  # enough for all scenes, so that no chunk runs twice
SCENES = ("walk_pied", "stand_black_dannce", "walk_fawn_fur", "stand_agouti")

# Changes of settings by their name.
CHANGES: dict[str, dict[str, Any]] = {
  BASE: {},
  "no mask loss": {"fit.mask_weight": 0.0},
  "mask weight 1": {"fit.mask_weight": 1.0},
  "white background": {"fit.random_background": False},
  "no relocation": {"fit.relocate_every": 0},
  "no exploration noise": {"fit.noise": 0.0},
  "no opacity pressure": {"fit.opacity_weight": 0.0},
  "opacity weight .05": {"fit.opacity_weight": 0.05},
  "no scale pressure": {"fit.scale_weight": 0.0},
  "scale weight 1": {"fit.scale_weight": 1.0},
  "scale weight 3": {"fit.scale_weight": 3.0},
  "opacity decay .999": {"fit.opacity_decay": 0.999},
  "no dropout": {"fit.dropout": 0.0},
  "dropout .1": {"fit.dropout": 0.1},
  "filter of the papers": {},  # by model, see `changes_of`
  "SH degree 0": {"fit.sh_degree": 0},
  "SH degree 2": {"fit.sh_degree": 2},
  "SH bands at .1 of the rate": {"fit.lr_bands": 0.1},
  "one resolution": {"fit.resolutions": (1,), "fit.stages": ()},
  "no averaging": {"fit.average_from": 1.0},
  "no SSIM": {"fit.ssim_weight": 0.0},
  "SSIM .2": {"fit.ssim_weight": 0.2},
  "SSIM .6": {"fit.ssim_weight": 0.6},
  "position rate / 2": {"fit.lr_position": 0.001},
  "position rate ends at .01": {"fit.lr_position_final": 0.01},
  "feature rate .01": {"fit.lr_feature": 0.01, "fit.lr_bands": 0.1},
  "scaling rate .005": {"fit.lr_scaling": 0.005},
  "scaling rate .015": {"fit.lr_scaling": 0.015},
  "six views a step": {"fit.views_per_step": 0},
  "one view a step": {"fit.views_per_step": 1},
  "poses 2e-5": {"fit.pose_rate": 2e-5},
  "2,000 steps": {"fit.iterations": 2000},
  "no normal consistency": {"fit.normal_weight": 0.0},
  "normal weight .2": {"fit.normal_weight": 0.2},
  "only views that were taken": {"fit.novel_weight": 0.0},
  "novel weight .05": {"fit.novel_weight": 0.05},
  "no distortion": {"fit.depth_weight": 0.0},
}
# Changes that make sense for one model only.
_ONLY = {"no distortion": "2dgs", "only views that were taken": "3dgs"}
_FILTERS = {"2dgs": 0.5, "3dgs": 0.3}


def changes_of(model: str) -> dict[str, dict[str, Any]]:
  """Returns the changes that make sense for a model."""
  kept = {k: v for k, v in CHANGES.items() if _ONLY.get(k, model) == model}
  return {**kept, "filter of the papers": {"fit.low_pass": _FILTERS[model]}}


def choose(names: Sequence[str], part: str) -> list[str]:
  """Returns the I-th of every N names (`part` is I/N), and always the unchanged recipe."""
  first, step = map(int, part.split("/"))
  return [BASE, *[name for name in names if name != BASE][first::step]]


def make_table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns a line for every change; rows have the keys `recipe`, `scene`, `seed`, `fg_psnr`."""
  held = {(r["recipe"], r["scene"], r["seed"]): r["fg_psnr"] for r in rows}
  names, scenes, seeds = ([*dict.fromkeys(key[i] for key in held)] for i in range(3))
  table = np.array([[[held[n, s, k] for k in seeds] for s in scenes] for n in names])
  gain = (table - table[names.index(BASE)]).mean(1)
  lines = ["| change | " + " | ".join(scenes) + " | mean gain |"]
  lines.append("| " + " | ".join(["---"] * (len(scenes) + 2)) + " |")
  for name, scores, gains in zip(names, table, gain, strict=True):
    cells = [f"{scene.mean():.2f} ± {scene.std():.2f}" for scene in scores]
    gained = "" if name == BASE else f"{gains.mean():+.2f} ± {gains.std():.2f}"
    lines.append(f"| {name} | " + " | ".join(cells) + f" | {gained} |")
  return "\n".join(lines)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
  """Returns the rows of a part of the changes of a model."""
  size, views, shrink = quality.SIZES[options.size]
  changes = changes_of(options.config)
  names = choose(options.only.split(",") if options.only else list(changes), options.part)
  recipes = [
    quality.make_recipe(name, options.config, {**_ROOM, **shrink, **changes[name]})
    for name in names
  ]
  split = lambda text: text.split(",") if text else []
  scenes, folders = split(options.scenes), split(options.folder)
  trials = quality.make_trials(scenes, folders, size, views, options.cache)
  rows: list[dict[str, Any]] = []
  for row in quality.run(trials, recipes, list(map(int, split(options.seeds))), options.batch):
    rows.append(row)
    report(f"ablation_{options.config}_{options.part.split('/')[0]}", rows)
    print(f"{row['recipe']}: {row['scene']} {row['seed']}: {row['fg_psnr']:.2f}", flush=True)
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="2dgs", choices=list(_FILTERS))
  parser.add_argument("--scenes", default=",".join(SCENES), help="of benchmarks/mice.py")
  parser.add_argument("--folder", default="", help="scene folders with input/ and target/ too")
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--only", default="", help="names of changes")
  parser.add_argument("--part", default="0/1", help="I/N")
  parser.add_argument("--size", default="full", choices=list(quality.SIZES))
  parser.add_argument("--batch", type=int, default=18, help="scenes fitted together")
  parser.add_argument("--cache", default="", help="a folder that stores the photographs")
  parser.add_argument("--table", default="", help="only join these JSON files")
  options = parser.parse_args()
  if options.table:
    texts = [pathlib.Path(path).read_text() for path in options.table.split(",")]
    print(make_table([row for text in texts for row in json.loads(text)["rows"]]))
    return
  devices.set_up_cache()
  print(make_table(run(options)))


if __name__ == "__main__":
  main()
