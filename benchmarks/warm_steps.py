"""Warm starts: how many steps a moment needs that starts from the fit of the moment before.

    python -m benchmarks.warm_steps
    python -m benchmarks.warm_steps --size=tiny --mice=1 --rates=30 --steps=5     a check on a CPU

Built-in mice walk as in `warm_start.py`. The second of two moments is fitted from its hull with all
steps (`cold`), and from the fit of the first moment with the numbers of steps that `--steps` names,
which are whole relocation periods. Prints fg PSNR and IoU of views that no camera took, for each
frame rate, with the overlap of the moments' silhouettes by which a run decides, and what is gained
over `cold`, mean and worst animal; then the gain of all animals and rates by their overlap, which
tells `frame_order.NEAR`. Where $OUT is set, warm_steps.json goes there.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import quality, walking
from benchmarks.workload import report
from jaxsplat_mouse.fit.warm_start import carry_over, continuation_config
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.run import nearness
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.scene import Scene

_BINS = (0.0, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.01)


def _overlap(one: Scene, other: Scene) -> float:
  """Returns the overlap of two moments, from scenes of one rig."""
  seen = [
    nearness.Silhouettes(
      masks=np.stack([nearness.centred(alpha > 0.5) for alpha in scene.alphas]),
      axes=np.asarray(scene.cameras.world_to_camera)[:, :3, :3],
    )
    for scene in (one, other)
  ]
  return nearness.overlap(*seen)


def run(
  recipe: quality.Recipe,
  seeds: list[int],
  rate: float,
  steps: Sequence[int],
  size: int,
  views: int,
  cache: pathlib.Path | None,
) -> list[dict[str, Any]]:
  """Fits the second of two moments in several ways.

  Args:
    recipe: how to fit.
    seeds: of the animals.
    rate: frames a second.
    steps: numbers of steps to try.
    size: side of all images, pixels.
    views: number of novel views.
    cache: a folder that stores the renders.

  Returns:
    a row for each way.
  """
  frames = [walking.frame_at(seed, time) for time in (0.0, 1.0 / rate) for seed in seeds]
  trials = walking.trials(frames, size, views, cache)
  first, second = trials[: len(seeds)], trials[len(seeds) :]
  overlaps = [_overlap(a.scene, b.scene) for a, b in zip(first, second, strict=True)]
  before, _ = quality.fit_trials(first, seeds, recipe)

  def begin(index: int, fresh: Gaussians) -> Gaussians:
    ratio = second[index].similarity.scale / first[index].similarity.scale
    return carry_over(before[index], fresh, ratio)

  base = continuation_config(recipe.fit)
  ways = [("cold", recipe, None)]
  for count in steps:
    fit = dataclasses.replace(base, iterations=count)
    ways.append(("warm", dataclasses.replace(recipe, fit=fit), begin))
  rows: list[dict[str, Any]] = []
  cold: np.ndarray | None = None
  for name, how, start in ways:
    fits, seconds = quality.fit_trials(second, seeds, how, start)
    scores = [quality.score(t, g, how) for t, g in zip(second, fits, strict=True)]
    psnr = np.array([one["fg_psnr"] for one in scores])
    cold = psnr if cold is None else cold
    rows.append(
      {
        "rate": rate,
        "overlap": float(np.mean(overlaps)),
        "least_overlap": float(np.min(overlaps)),
        "start": name,
        "steps": how.fit.iterations,
        "seconds": seconds,
        "fg_psnr": float(psnr.mean()),
        "iou": float(np.mean([one["iou"] for one in scores])),
        "gain": float((psnr - cold).mean()),
        "worst": float((psnr - cold).min()),
        "overlaps": overlaps,
        "gains": (psnr - cold).tolist(),
      }
    )
  return rows


def print_by_overlap(rows: Sequence[dict[str, Any]]) -> None:
  """Prints the mean and the worst gain of warm starts by overlap and number of steps."""
  warm = [row for row in rows if row["start"] == "warm"]
  overlaps = np.array([value for row in warm for value in row["overlaps"]])
  gains = np.array([value for row in warm for value in row["gains"]])
  steps = np.array([row["steps"] for row in warm for _ in row["gains"]])
  for count in sorted(set(steps)):
    for low, high in itertools.pairwise(_BINS):
      found = gains[(steps == count) & (overlaps >= low) & (overlaps < high)]
      if len(found):
        print(
          f"{count:4} steps  overlap {low:.2f} to {high:.2f}  {len(found):2} moments  "
          f"{found.mean():+.2f} dB (worst {found.min():+.2f})"
        )


def main() -> None:
  parser = walking.make_parser(__doc__.splitlines()[0], "2dgs")
  parser.add_argument("--rates", default="60,30,15,10,5,2", help="frames a second")
  parser.add_argument("--steps", default="250,350,500,750", help="of the warm starts")
  parser.set_defaults(mice=8)
  args = parser.parse_args()
  devices.set_up_cache()
  size, views, shrink = quality.SIZES[args.size]
  recipe = quality.make_recipe(args.config, args.config, shrink)
  steps = [int(count) for count in args.steps.split(",")]
  rows: list[dict[str, Any]] = []
  for rate in map(float, args.rates.split(",")):
    found = run(recipe, list(range(args.mice)), rate, steps, size, min(views, 8), args.cache)
    rows += found
    for row in found:
      print(
        f"{rate:3g} fps  overlap {row['overlap']:.3f} (least {row['least_overlap']:.3f})  "
        f"{row['start']} {row['steps']:4} steps  {row['fg_psnr']:.2f} dB / {row['iou']:.4f}  "
        f"{row['gain']:+.2f} dB (worst {row['worst']:+.2f})  {row['seconds']:.1f} s",
        flush=True,
      )
    report("warm_steps", rows)
  print_by_overlap(rows)


if __name__ == "__main__":
  main()
