"""Dense recordings: what starting from each other's fits gains in time, at which quality.

    python -m benchmarks.warm_start              two mice, 64 moments each, 30 and 10 fps
    python -m benchmarks.warm_start --config=3dgs --mice=4
    python -m benchmarks.warm_start --size=tiny --mice=1 --moments=32 --rates=30   a check on a CPU

Built-in mice walk three strides a second and turn their bodies meanwhile, at most 63 degrees a
second; six cameras film them. `jaxsplat_mouse.main` makes a dataset of every film with
`fit.warm_start=off`, where every moment starts from its hull, and with `auto`. The first film is
processed once before the clock counts, so that no run compiles.

Prints, for each frame rate and way: the share of moments that started from another's fit, seconds
of the fits and of the whole job, scenes a minute, and fg PSNR and IoU of views that no camera took;
then the difference of `auto` to `off`, moment by moment, by the number of fits that lie between a
moment and the hull that it goes back to. Where $OUT is set, warm_start.json goes there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks import mice, quality, walking, whole_job
from benchmarks.workload import report
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse import render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run import fit_store, nearness
from jaxsplat_mouse.run.outputs import canonical_groups
from jaxsplat_mouse.run.renders import render_groups
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices

WAYS = ("off", "auto")
_FIRST_SEED = 401
_TRUTH_FILE = "truth.npz"
_TINY = {"size": 36, "views": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
  """Where a recording is, and how it was taken.

  Attributes:
    folder: a folder of scenes, beside a folder of truth.
    rate: frames a second.
    size: side of all images, pixels.
    views: number of novel views of each moment.
  """

  folder: pathlib.Path
  rate: float
  size: int
  views: int


def make_film(film: Film, seeds: Sequence[int], moments: int) -> None:
  """Writes a recording of each animal, `in/mouse_SEED/SEED_MOMENT`, and the truth beside it."""
  jobs = [(seed, moment) for seed in seeds for moment in range(moments)]
  before = os.environ.get("JAX_PLATFORMS"), os.environ.get("NPROC")
  os.environ.update(JAX_PLATFORMS="cpu", NPROC="1")  # for the new processes
  with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
    list(pool.map(functools.partial(_shoot, film), jobs, chunksize=2))
  for name, value in zip(("JAX_PLATFORMS", "NPROC"), before, strict=True):
    if value is None:
      del os.environ[name]
    else:
      os.environ[name] = value


def _shoot(film: Film, job: tuple[int, int]) -> None:
  """Writes one moment; the camera file comes last and marks it as complete."""
  seed, moment = job
  name = f"{seed}_{moment:04d}"
  scene, truth = film.folder / "in" / f"mouse_{seed}" / name, film.folder / "truth" / f"{name}.npz"
  if (scene / camera_file.CAMERAS_FILE).is_file():
    return
  mouse = walking.frame_at(seed, moment / film.rate).mouse
  own, novel = input_cameras(image_size=film.size), mice.novel_cameras(film.size, film.views)
  # One ray a pixel inside, nine at outlines: a third of the usual rays.
  levels = [
    np.round(255 * render_truth(mouse, rig, samples=1, edge_samples=3).rgba).astype(np.uint8)
    for rig in (own, novel)
  ]
  truth.parent.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(truth, rgba=levels[1])
  names = [f"images/cam_{i:03d}.png" for i in range(len(levels[0]))]
  (scene / "images").mkdir(parents=True, exist_ok=True)
  for file, view in zip(names, levels[0], strict=True):
    (scene / file).write_bytes(images.encode_png(view))
  camera_file.write_scene_cameras(scene, own, names)


def process(film: Film, way: str, flags: Sequence[str]) -> float:
  """Runs `main` on a film in a new workdir; returns the seconds that it took."""
  workdir = film.folder / way
  shutil.rmtree(workdir, ignore_errors=True)
  arguments = [f"--config.data.input={film.folder / 'in'}", f"--workdir={workdir}"]
  arguments += [f"--config.fit.warm_start={way}", "--config.report.contact_sheets=False", *flags]
  _, _, seconds, status = whole_job.run_job(arguments)
  if status:
    raise RuntimeError(f"the run in {workdir} ended with {status}")
  print(f"{film.rate:g} fps {way}: {seconds:.1f} s", flush=True)
  return seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
  """A moment of a run: its scores, and the fits between it and a hull (0: none)."""

  fg_psnr: float
  iou: float
  depth: int


def score(film: Film, workdir: pathlib.Path) -> dict[str, Scored]:
  """Scores all fits of a run at the novel views."""
  folder = Workdir(workdir)
  names = sorted(path.name for path in folder.fits.iterdir())
  starts = {
    name: json.loads((folder.fits / name / fit_store.SCENE_FILE).read_text()).get("start")
    for name in names
  }
  found = {}
  for name in names:
    saved = fit_store.load_fit(folder, name)
    groups = [(np.arange(film.views), mice.novel_cameras(film.size, film.views))]
    views = canonical_groups(groups, saved.similarity)
    rendered = render_groups(saved.gaussians, views, saved.filter_width)
    truth = mice.to_unit_floats(np.load(film.folder / "truth" / f"{name}.npz")["rgba"])
    depth, before = 0, starts[name]
    while before:
      depth, before = depth + 1, starts[before]
    found[name] = Scored(**quality.score_images(rendered, list(truth)), depth=depth)
  return found


def mean_overlap(film: Film) -> float:
  """Returns the mean overlap of the silhouettes of moments that follow each other."""
  values = []
  for recording in sorted((film.folder / "in").iterdir()):
    seen = [nearness.read_silhouettes(scene) for scene in sorted(recording.iterdir())]
    values += [nearness.overlap(a, b) for a, b in itertools.pairwise(seen)]
  return float(np.mean(values))


def measure(film: Film, seconds_of: dict[str, float]) -> list[dict[str, Any]]:
  """Scores a film that was processed both ways; returns a row for each.

  Args:
    film: it.
    seconds_of: the seconds of the whole job, by way.
  """
  rows, scores = [], {}
  overlap = mean_overlap(film)
  for way, seconds in seconds_of.items():
    workdir = film.folder / way
    scores[way] = score(film, workdir)
    timing = [json.loads(line) for line in (workdir / "timing.jsonl").read_text().splitlines()]
    values = scores[way].values()
    rows.append(
      {
        "rate": film.rate,
        "overlap": overlap,
        "way": way,
        "scenes": len(values),
        "warm": float(np.mean([one.depth > 0 for one in values])),
        "batches": [row["scenes"] for row in timing],
        "fit_seconds": sum(row["seconds"].get("fit", 0.0) for row in timing),
        "seconds": seconds,
        "scenes_per_minute": 60 * len(values) / seconds,
        "fg_psnr": float(np.mean([one.fg_psnr for one in values])),
        "iou": float(np.mean([one.iou for one in values])),
      }
    )
  rows[-1]["by_depth"] = _by_depth(scores["off"], scores["auto"])
  return rows


def _by_depth(cold: dict[str, Scored], warm: dict[str, Scored]) -> list[dict[str, float]]:
  """Returns the mean difference of scores by depth."""
  rows = []
  for depth in sorted({one.depth for one in warm.values()}):
    names = [name for name, one in warm.items() if one.depth == depth]
    gain = [warm[n].fg_psnr - cold[n].fg_psnr for n in names]
    rows.append(
      {
        "depth": depth,
        "scenes": len(names),
        "fg_psnr": float(np.mean(gain)),
        "worst": float(np.min(gain)),
        "iou": float(np.mean([warm[n].iou - cold[n].iou for n in names])),
      }
    )
  return rows


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
  """Prints the table of one film."""
  for row in rows:
    print(
      f"{row['rate']:g} fps, overlap {row['overlap']:.3f}: {row['way']:4} "
      f"{100 * row['warm']:3.0f} % warm  fits {row['fit_seconds']:.1f} s  "
      f"job {row['seconds']:.1f} s  {row['scenes_per_minute']:.0f} scenes/min  "
      f"{row['fg_psnr']:.2f} dB / {row['iou']:.4f}  batches {row['batches']}"
    )
  for one in rows[-1]["by_depth"]:
    print(
      f"  depth {one['depth']}: {one['scenes']:3} moments  {one['fg_psnr']:+.2f} dB "
      f"(worst {one['worst']:+.2f}) / {one['iou']:+.4f}",
      flush=True,
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="2dgs", help="a recipe of configs/")
  parser.add_argument("--mice", type=int, default=2, help="recordings, of an animal each")
  parser.add_argument("--moments", type=int, default=64, help="of each recording")
  parser.add_argument("--rates", default="30,10", help="frames a second")
  parser.add_argument("--size", default="full", choices=("full", "tiny"))
  parser.add_argument("--views", type=int, default=4, help="novel views of each moment")
  parser.add_argument("--cache", type=pathlib.Path, help="a folder that keeps the films")
  args, flags = parser.parse_known_args()
  devices.set_up_cache()
  tiny = args.size == "tiny"
  flags = [f"--config={args.config}", *(whole_job.TINY if tiny else ()), *flags]
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as temporary:
    root = args.cache or pathlib.Path(temporary)
    runs: list[tuple[Film, dict[str, float]]] = []
    for i, rate in enumerate(map(float, args.rates.split(","))):
      film = Film(
        folder=(root / f"fps_{rate:g}").absolute(),
        rate=rate,
        size=_TINY["size"] if tiny else 512,
        views=_TINY["views"] if tiny else args.views,
      )
      began = time.monotonic()
      make_film(film, range(_FIRST_SEED, _FIRST_SEED + args.mice), args.moments)
      print(f"{rate:g} fps: filmed in {time.monotonic() - began:.0f} s", flush=True)
      for way in WAYS if i == 0 else ():
        process(film, way, flags)  # compiles
      runs.append((film, {way: process(film, way, flags) for way in WAYS}))
    for film, seconds in runs:  # at the end: scoring takes the device's memory from the runs
      found = measure(film, seconds)
      print_rows(found)
      rows += found
      report("warm_start", rows, device=devices.describe())


if __name__ == "__main__":
  main()
