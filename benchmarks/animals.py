"""Two mice that touch: what one loses where the other hides it, and what unobserved pixels save.

    python -m benchmarks.animals                          three arrangements, two rigs, both mice
    python -m benchmarks.animals --size=tiny --arrangements=side --rigs=ring       runs on a CPU

Built-in mice are filmed together, exactly, and go through `prepare` with hard label masks. Each of
them is fitted from three scenes: `alone`, filmed without the other one; `unobserved`, as `prepare`
writes it; `background`, where pixels of the other one count as background, as a mask per animal
would have it by itself. fg PSNR (dB) and IoU of views that no camera took, of the one mouse by
itself; `hidden` is the share of its silhouettes that the other one hides. Where $OUT is set,
animals.json goes there.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pathlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from absl import app, flags
from rich.console import Console

from benchmarks import quality
from benchmarks.workload import report
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.capture import preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Animal, Capture, Stream
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.procedural_mouse.several_mice import place_mouse, render_mice
from jaxsplat_mouse.runtime import devices

# Where the two mice stand, x y and heading, so that they touch.
ARRANGEMENTS = {
  "side": ((0.0, 0.196, 0.2), (0.1, -0.196, -0.1)),
  "cross": ((0.0, 0.2, 0.2), (0.3, -0.49, 1.9)),
  "nose": ((-0.468, 0.05, 0.1), (0.468, -0.05, 3.0)),
}
RIGS = ("ring", "dannce")
TREATMENTS = ("alone", "unobserved", "background")
_GROUND = np.array([0.55, 0.5, 0.42])
_MOMENT = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFilm:
  """Exact pictures of two mice, uint8.

  Attributes:
    cameras: (V,) of the rig.
    photos: (3, V, H, W, 3): both mice, the first alone, the second alone.
    labels: (3, V, H, W), ids 1 and 2.
    truth: (2, N, S, S, 4) float32, each mouse alone at `novel`.
    novel: (N,) cameras that took no photograph.
    hidden: (2,) share of each mouse's silhouettes that the other hides.
  """

  cameras: Cameras
  photos: np.ndarray
  labels: np.ndarray
  truth: np.ndarray
  novel: Cameras
  hidden: np.ndarray


def mice_of(arrangement: str) -> list[Mouse]:
  """Returns the two mice of an arrangement, on one floor."""
  pair = [make_mouse(301, "walk", "agouti"), make_mouse(303, "walk", "black")]
  placed = [place_mouse(m, *at) for m, at in zip(pair, ARRANGEMENTS[arrangement], strict=True)]
  floor = max(mouse.floor for mouse in placed)
  return [dataclasses.replace(m, translation=(*m.translation[:2], floor)) for m in placed]


def film_pair(job: tuple[str, str, int, int]) -> PairFilm:
  """Films an arrangement (its name, the rig's, width of the images, number of novel views)."""
  arrangement, rig, width, count = job
  cameras = dannce_cameras(width) if rig == "dannce" else input_cameras(image_size=width)
  mice = mice_of(arrangement)
  views = render_mice(mice, cameras)
  novel = generate_camera_poses(count, image_size=width)
  every = np.stack([views.rgba, *views.whole])
  photos = every[..., :3] * every[..., 3:] + _GROUND * (1 - every[..., 3:])
  single = [(w[..., 3] >= 0.5) * np.uint8(i + 1) for i, w in enumerate(views.whole)]
  return PairFilm(
    cameras=cameras,
    photos=(photos * 255 + 0.5).astype(np.uint8),
    labels=np.stack([views.labels, *single]),
    truth=np.stack([render_truth(mouse, novel).rgba for mouse in mice]),
    novel=novel,
    hidden=1 - views.shares.sum((1, 2, 3)) / views.whole[..., 3].sum((1, 2, 3)),
  )


def prepare_film(film: PairFilm, number: int, animals: Sequence[str], folder: pathlib.Path) -> None:
  """Writes one recording of a film and prepares it.

  Args:
    film: the pictures.
    number: of the recording: 0 for both mice.
    animals: their ids.
    folder: gets the files, and the scenes in `scenes/`.
  """
  streams: dict[str, list[Stream]] = {"photo": [], "label": []}
  for view in range(len(film.cameras)):
    for kind, pictures in (("photo", film.photos), ("label", film.labels)):
      path = folder / f"{kind}_{view}.png"
      path.write_bytes(images.encode_png(pictures[number, view]))
      streams[kind].append(Stream(images=(path,)))
  capture = Capture(
    path=folder,
    rig=_rig(film.cameras),
    pictures=tuple(streams["photo"]),
    masks=tuple(streams["label"]),
    frames=np.zeros((1, len(film.cameras)), np.int64),
    moments=np.array([_MOMENT]),
    up="+z",
    animals=tuple(Animal(name=name, label=int(name)) for name in animals),
  )
  options = PrepareOptions(
    format="dannce", input=folder, output=folder / "scenes", animals=tuple(animals)
  )
  preparation.prepare_recording(options, capture, Console(file=io.StringIO()))


def _rig(cameras: Cameras) -> Rig:
  matrices = np.tile(np.eye(3), (len(cameras), 1, 1))
  intrinsics = np.asarray(cameras.intrinsics, np.float64)
  for row, k in zip(matrices, intrinsics, strict=True):
    row[0, 0], row[1, 1], row[0, 2], row[1, 2] = k
  return Rig(
    names=tuple(f"Camera{i + 1}" for i in range(len(cameras))),
    matrices=matrices,
    world_to_camera=np.asarray(cameras.world_to_camera, np.float64),
    distortion=np.zeros((len(cameras), 5)),
    sizes=np.tile([cameras.width, cameras.height], (len(cameras), 1)),
  )


def make_trials(name: str, film: PairFilm, folder: pathlib.Path) -> list[quality.Trial]:
  """Returns the trials of both mice by all treatments; leaves out those that have no hull."""
  trials = []
  for number, animals in ((0, ("1", "2")), (1, ("1",)), (2, ("2",))):
    place = folder / f"{name.replace(' ', '_')}_{number}"
    place.mkdir()
    prepare_film(film, number, animals, place)
    for animal in animals:
      scene = facelift.read_scene(next((place / "scenes").glob(f"*_a{animal}"))).scene
      treated = {"alone": scene}
      if number == 0:
        shown = dataclasses.replace(scene, hidden=None)
        treated = {"unobserved": scene, "background": shown}
      groups = [(np.arange(len(film.novel)), film.novel)]
      for treatment, one in treated.items():
        title = f"{name} {animal} {treatment}"
        try:
          truth = list(film.truth[int(animal) - 1])
          trials.append(quality.canonical_trial(title, one, groups, truth))
        except ValueError as error:
          print(f"{title}: {error}")
  return trials


def make_table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the scores as a table: a row for each mouse, a column for each treatment."""
  scores = {(r["case"], r["treatment"]): (r["fg_psnr"], r["iou"]) for r in rows}
  cases = list(dict.fromkeys(r["case"] for r in rows))
  hidden = {r["case"]: r["hidden"] for r in rows}
  lines = [f"| mouse | hidden | {' | '.join(TREATMENTS)} |", "| --- " * (2 + len(TREATMENTS)) + "|"]
  missing = (math.nan, math.nan)
  for case in cases:
    cells = ["{:.2f} / {:.4f}".format(*scores.get((case, t), missing)) for t in TREATMENTS]
    lines.append(f"| {case} | {hidden[case]:.0%} | {' | '.join(cells)} |")
  means = [
    np.nanmean([scores.get((case, t), missing) for case in cases], 0).tolist() for t in TREATMENTS
  ]
  cells = ["{:.2f} / {:.4f}".format(*mean) for mean in means]
  return "\n".join([*lines, f"| **mean** | | {' | '.join(cells)} |"])


def _main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  devices.set_up_cache()
  width, views, shrink = quality.SIZES[given.size]
  recipe = quality.make_recipe(given.config, given.config, shrink)
  names = [(a, r) for a in given.arrangements for r in given.rigs]
  # Tracing is NumPy's: processes, which must not inherit this one's device.
  with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), get_context("spawn")) as pool:
    films = list(pool.map(film_pair, [(*name, width // 9 * 9, views) for name in names]))
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as folder:
    for name, film in zip(names, films, strict=True):
      trials = make_trials(" ".join(name), film, pathlib.Path(folder))
      splats, _ = quality.fit_trials(trials, [given.seed] * len(trials), recipe)
      for trial, gaussians in zip(trials, splats, strict=True):
        case, _, treatment = trial.name.rpartition(" ")
        hidden = float(film.hidden[int(case[-1]) - 1])
        scores = quality.score(trial, gaussians, recipe)
        rows.append({"case": case, "treatment": treatment, "hidden": hidden, **scores})
        quality.print_row(rows[-1])
        report("animals", rows, device=devices.describe())
  print(make_table(rows))


def _define_flags() -> None:
  flags.DEFINE_string("config", "2dgs", "Recipe of configs/.")
  flags.DEFINE_list("arrangements", list(ARRANGEMENTS), "How the mice stand.")
  flags.DEFINE_list("rigs", list(RIGS), "The cameras.")
  flags.DEFINE_integer("seed", 0, "Seed of the fits.")
  flags.DEFINE_enum("size", "full", list(quality.SIZES), "How large everything is.")


if __name__ == "__main__":
  _define_flags()
  app.run(_main)
