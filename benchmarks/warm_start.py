"""Warm starts: what a frame's fit gains from the fit of the frame before, in a third of the steps.

    python -m benchmarks.warm_start --config=2dgs
    python -m benchmarks.warm_start --size=tiny --mice=1      on a CPU, to see that it works

Built-in mice walk `--stride` strides from one frame to the next. The second frame is fitted from
its hull with all steps (`cold`), from its hull with as many as a warm start takes (`short`), and
from the first frame's fit with those (`warm`). Prints novel-view fg PSNR and IoU, and JSON into
$OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

import numpy as np

from benchmarks import quality, walking
from benchmarks.workload import report
from jaxsplat_mouse.fit.warm_start import carry_over, continuation_config
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.runtime import devices


def run(
  recipe: quality.Recipe,
  seeds: list[int],
  stride: float,
  size: int,
  views: int,
  cache: pathlib.Path | None,
) -> list[dict]:
  """One row for each way to fit the second frame: mean scores over the animals, and its steps."""
  frames = [walking.Frame(seed=s, phase=p) for p in (0.0, stride) for s in seeds]
  trials = walking.trials(frames, size, views, cache)
  first, second = trials[: len(seeds)], trials[len(seeds) :]
  before, _ = quality.fit_trials(first, seeds, recipe)
  short = dataclasses.replace(recipe, fit=continuation_config(recipe.fit))

  def begin(index: int, fresh: Gaussians) -> Gaussians:
    ratio = second[index].similarity.scale / first[index].similarity.scale
    return carry_over(before[index], fresh, ratio)

  rows = []
  for name, how, start in (("cold", recipe, None), ("short", short, None), ("warm", short, begin)):
    fits, seconds = quality.fit_trials(second, seeds, how, start)
    scores = [quality.score(t, g, how) for t, g in zip(second, fits, strict=True)]
    mean = {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}
    rows.append({"start": name, "steps": how.fit.iterations, "seconds": seconds, **mean})
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="2dgs", help="of configs/")
  parser.add_argument("--mice", type=int, default=4)
  parser.add_argument("--stride", type=float, default=0.05)
  parser.add_argument("--size", default="full", choices=list(quality.SIZES))
  parser.add_argument("--cache", default="", help="a folder that keeps the photographs")
  args = parser.parse_args()
  devices.set_up_cache()
  size, views, shrink = quality.SIZES[args.size]
  recipe = quality.make_recipe(args.config, args.config, shrink)
  cache = pathlib.Path(args.cache) if args.cache else None
  rows = run(recipe, list(range(args.mice)), args.stride, size, views, cache)
  print(f"{args.config}: {args.mice} mice, {args.stride:g} strides a frame")
  for row in rows:
    told = f"{row['fg_psnr']:.2f} dB / {row['iou']:.4f}"
    print(f"{row['start']:6} {row['steps']:5} steps  {told}  {row['seconds']:.1f} s")
  report("warm_start", rows)


if __name__ == "__main__":
  main()
