"""Recordings with faults: what a calibration or masks that are a little wrong cost, and what
`prepare` wins back.

    python -m benchmarks.recordings                                     every fault, three mice
    python -m benchmarks.recordings --subjects=grey --faults=wide,all          another rig
    python -m benchmarks.recordings --seeds=0,1,2 --shards=4                   four GPUs
    python -m benchmarks.recordings --merge=A.json,B.json                      one table

Built-in mice walk through the arena of a real rig, with its lenses, before a textured background
with a soft shadow. Each recording goes the whole way: its raw files are written with a fault
(`recording_faults.py`, `recording_files.py`), `prepare` reads them, and the scenes that it writes
are fitted and scored. `given` is the recording with every repair switched off (--refine=off and its
like), `prepared` with the defaults of `prepare` and --prepare_flags; `none`, as given, is what
losses are measured against.

Printed: error of the cameras near the animal and of the outlines (pixels), fg PSNR (dB) and IoU of
views that no camera took, after the motion and growth that all cameras share is removed, which is
no error; what a recording without faults scores more; the share of the given recording's loss that
`prepare` wins back; refusals and the cameras that were named. Where $OUT is set, recordings*.json
goes there as rows are ready; --merge prints the table of such files.

Recordings are prepared in processes on the CPU, --jobs at a time, while fits of what is ready run:
in this process, or in --shards processes that see one GPU each.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from absl import app, flags

from benchmarks import quality, recording_films, recording_scores, recording_treatments
from benchmarks.recording_faults import FAULTS
from benchmarks.recording_films import SUBJECTS, FilmSize
from benchmarks.recording_treatments import Place, Treatment
from jaxsplat_mouse.runtime import devices

_ALL_CORES = os.cpu_count() or 2


def _place() -> Place:
  given = flags.FLAGS
  size = FilmSize(moments=given.moments, scored=given.scored, width=given.width, views=given.views)
  work = pathlib.Path(given.work or pathlib.Path(given.cache, "work"))
  return Place(
    size=size, cache=pathlib.Path(given.cache), work=work, video=given.video, keep=given.keep
  )


def _treatments() -> list[Treatment]:
  given = flags.FLAGS
  seeds = [int(seed) for seed in given.seeds]
  return recording_treatments.all_treatments(
    given.subjects, given.faults, seeds, given.prepare_flags
  )


def _fit(treatments: Sequence[Treatment], place: Place, name: str) -> list[recording_scores.Row]:
  """Fits treatments, prints each row, and keeps all rows in files."""
  given = flags.FLAGS
  devices.set_up_cache()
  _, _, shrink = quality.SIZES[given.size]
  if given.entries:
    shrink = {**shrink, "fit.tile_entries": given.entries}
  recipe = quality.make_recipe(given.config, given.config, shrink)
  path = place.work / f"{name}.json"
  earlier = _read_rows([str(path)]) if path.is_file() else []
  left, rows = recording_scores.find_unfinished(treatments, earlier, given.scored)
  for some in recording_scores.fit_treatments(left, place, recipe, given.batch):
    for row in some:
      quality.print_row({k: v for k, v in row.items() if k != "lines"})
    rows += some
    _write_rows(rows, place, name)
  return rows


def _write_rows(rows: Sequence[recording_scores.Row], place: Place, name: str) -> None:
  folders = [place.work, *([pathlib.Path(os.environ["OUT"])] if os.environ.get("OUT") else [])]
  for folder in folders:
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1))


def _start_shards(count: int) -> list[subprocess.Popen[bytes]]:
  """Starts this command again, once for each GPU, to fit a share of the treatments."""
  found = []
  for i in range(count):
    visible = {**os.environ, "CUDA_VISIBLE_DEVICES": str(i)}
    command = [sys.executable, "-m", "benchmarks.recordings", *sys.argv[1:], f"--shard={i}"]
    found.append(subprocess.Popen(command, env=visible))
  return found


def _read_rows(paths: Sequence[str]) -> list[recording_scores.Row]:
  return [row for path in paths for row in json.loads(pathlib.Path(path).read_text())]


def _main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  if given.merge:
    print(recording_scores.make_table(_read_rows(given.merge)))
    return
  place, treatments = _place(), _treatments()
  if given.shard >= 0:
    _fit(treatments[given.shard :: given.shards], place, f"recordings_{given.shard}")
    return
  place.work.mkdir(parents=True, exist_ok=True)
  if not given.resume:
    recording_treatments.forget_results(treatments, place.work)
    for path in place.work.glob("recordings*.json"):
      path.unlink()
  sides = any(FAULTS[fault].late for fault in given.faults)
  recording_films.make_films(
    given.subjects, place.size, place.cache, sides=sides, jobs=given.jobs or _ALL_CORES
  )
  shards = _start_shards(given.shards) if given.shards > 1 and given.fits else []
  jobs = given.jobs or max(1, (_ALL_CORES - 2 * len(shards)) // max(given.cores, 1))
  recording_treatments.prepare_all(treatments, place, jobs, given.cores)
  if not given.fits:
    return
  if shards:
    failed = [i for i, shard in enumerate(shards) if shard.wait()]
    rows = _read_rows([str(place.work / f"recordings_{i}.json") for i in range(len(shards))])
    _write_rows(rows, place, "recordings")
    if failed:
      print(f"shards that failed: {failed}")
  else:
    rows = _fit(treatments, place, "recordings")
  print(recording_scores.make_table(rows))


def _define_flags() -> None:
  flags.DEFINE_list("subjects", ["agouti", "pied", "black"], f"Of {', '.join(SUBJECTS)}.")
  flags.DEFINE_list("faults", list(FAULTS), "Names of FAULTS.")
  flags.DEFINE_list("seeds", ["0"], "Seeds of the faults, and of the fits.")
  flags.DEFINE_list("prepare_flags", [], "Flags of `prepare` beside its defaults.")
  flags.DEFINE_integer("moments", 32, "Moments of a recording.", 2)
  flags.DEFINE_integer("scored", 2, "Moments that are fitted and scored.", 1)
  flags.DEFINE_integer("width", 504, "Of all images, pixels; a multiple of 9.", 9)
  flags.DEFINE_integer("views", 8, "Novel views of a scored moment.", 1)
  flags.DEFINE_boolean("video", False, "h264 video with skewed cameras, instead of PNG files.")
  flags.DEFINE_boolean("fits", True, "Fit and score; otherwise recordings are only prepared.")
  flags.DEFINE_string("config", "2dgs", "A recipe of configs/.")
  flags.DEFINE_enum("size", "full", list(quality.SIZES), "How large the fits are.")
  flags.DEFINE_integer("batch", 16, "Scenes fitted together.", 1)
  flags.DEFINE_float("entries", 0.0, "fit.tile_entries; 0: the recipe's own.")
  flags.DEFINE_integer("jobs", 0, "Processes that prepare; 0: as many as there are cores for.", 0)
  flags.DEFINE_integer("cores", 2, "Cores of such a process.", 0)
  flags.DEFINE_integer("shards", 1, "Processes that fit, with one GPU each.", 1)
  flags.DEFINE_integer("shard", -1, "Fit this share only; set by --shards.")
  flags.DEFINE_list("merge", [], "Files of rows, of which only the table is printed.")
  flags.DEFINE_string("cache", "/tmp/jaxsplat_recordings", "A folder that keeps the films.")
  flags.DEFINE_boolean("resume", False, "Go on with what is in --work, with the same flags.")
  flags.DEFINE_string("work", "", "Gets recordings and scenes; CACHE/work by default.")
  flags.DEFINE_boolean("keep", False, "Keep the raw recordings too.")


if __name__ == "__main__":
  _define_flags()
  app.run(_main)
