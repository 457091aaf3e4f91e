"""Warm starts: how a fit gains from that of the previous frame, in a third of the steps.

    python -m benchmarks.warm_start --config=2dgs
    python -m benchmarks.warm_start --size=tiny --mice=1      a check on a CPU

Expected of the first, on an H100: cold 27.40 dB / .9897, short 24.57 / .9808, warm 27.62 / .9901.

Built-in mice walk `--stride` strides from one frame to the next. The second frame is fitted from
its hull with all steps (`cold`), from its hull with the steps of a warm start (`short`), and from
the fit of the first frame with the same steps (`warm`). Prints novel-view fg PSNR and IoU and, if
$OUT is set, writes warm_start.json into it.
"""

from __future__ import annotations

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
  """Fits the second frame in three ways.

  Args:
    recipe: how to fit.
    seeds: of the animals.
    stride: from one frame to the next, strides.
    size: side of all images, pixels.
    views: number of novel views.
    cache: a folder that stores the renders.

  Returns:
    one row for each way: mean scores over the animals, steps and seconds.
  """
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
  parser = walking.make_parser(__doc__.splitlines()[0], "2dgs")
  parser.add_argument("--stride", type=float, default=0.05, help="strides from frame to frame")
  args = parser.parse_args()
  devices.set_up_cache()
  size, views, shrink = quality.SIZES[args.size]
  recipe = quality.make_recipe(args.config, args.config, shrink)
  rows = run(recipe, list(range(args.mice)), args.stride, size, views, args.cache)
  print(f"{args.config}: {args.mice} mice, {args.stride:g} strides a frame")
  for row in rows:
    scores = f"{row['fg_psnr']:.2f} dB / {row['iou']:.4f}"
    print(f"{row['start']:6} {row['steps']:5} steps  {scores}  {row['seconds']:.1f} s")
  report("warm_start", rows)


if __name__ == "__main__":
  main()
