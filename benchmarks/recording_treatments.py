"""Runs `prepare` on recordings with faults, in processes of their own, for `recordings.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import recording_files, recording_films, recording_measures
from benchmarks.recording_faults import FAULTS
from benchmarks.recording_films import FilmSize
from benchmarks.recording_workers import cpu_workers

GIVEN, PREPARED = "given", "prepared"
NOTHING = ("--refine=off", "--matte=off")  # flags of `prepare` that leave a recording as given
DONE, REFUSED, FAILED = "done", "refused", "failed"
_RESULT = "result.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Treatment:
  """One recording, and the flags that `prepare` gets.

  Attributes:
    subject: of `SUBJECTS`.
    fault: of `FAULTS`.
    seed: of the fault.
    name: `given` or `prepared`.
    flags: of `prepare`, beside input and output.
  """

  subject: str
  fault: str
  seed: int
  name: str
  flags: tuple[str, ...]

  def folder(self, work: pathlib.Path) -> pathlib.Path:
    """Returns where its scenes go."""
    return work / f"{self.subject}_{self.fault}_{self.seed}_{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where films and prepared scenes are, and of which kind.

  Attributes:
    size: of the films.
    cache: keeps the films.
    work: gets recordings and scenes.
    video: h264 instead of PNG.
    keep: keep the raw recordings.
  """

  size: FilmSize
  cache: pathlib.Path
  work: pathlib.Path
  video: bool
  keep: bool


def all_treatments(
  subjects: Sequence[str], faults: Sequence[str], seeds: Sequence[int], flags: Sequence[str]
) -> list[Treatment]:
  """Lists what is prepared, seed by seed; the recordings without faults come first.

  Args:
    subjects: names of `SUBJECTS`.
    faults: names of `FAULTS`; `none`, as given, is always there to compare with.
    seeds: of the faults.
    flags: of `prepare` for what is prepared.
  """
  ways = {GIVEN: NOTHING, PREPARED: tuple(flags)}
  names = ["none", *(fault for fault in faults if fault != "none")]
  return [
    Treatment(subject=subject, fault=fault, seed=seed, name=name, flags=ways[name])
    for seed in seeds
    for fault in names
    for subject in subjects
    for name in ways
    if name == GIVEN or fault in faults
  ]


def prepare_all(treatments: Sequence[Treatment], place: Place, jobs: int, cores: int) -> None:
  """Prepares what has no result yet, in order; a failure is a result too.

  Args:
    treatments: what to prepare.
    place: where.
    jobs: number of processes.
    cores: of each process, which sees no others; 0 for all.
  """
  recordings: dict[tuple[str, str, int], list[Treatment]] = {}
  for one in treatments:
    if read_result(one, place.work) is None:
      recordings.setdefault((one.subject, one.fault, one.seed), []).append(one)
  if not recordings:
    return
  place.work.mkdir(parents=True, exist_ok=True)
  with cpu_workers(jobs, cores) as pool:
    for one in [pool.submit(_prepare_recording, some, place) for some in recordings.values()]:
      print(one.result(), flush=True)


def _prepare_recording(treatments: Sequence[Treatment], place: Place) -> str:
  """Writes one recording and prepares it in one way or both; returns lines about it."""
  first = treatments[0]
  fault = FAULTS[first.fault]
  film = recording_films.load_film(first.subject, place.size, place.cache, sides=fault.late)
  raw = place.work / f"{first.subject}_{first.fault}_{first.seed}"
  given = recording_files.write_recording(raw, film, fault, first.seed, video=place.video)
  true = recording_files.true_rig(film, place.video)
  exact = functools.partial(recording_files.exact_alpha, film, true, fault, first.seed)
  numbers = recording_files.moment_frames(film)[film.scored]
  lines = []
  for one in treatments:
    folder = one.folder(place.work)
    result = _prepare(raw, folder, numbers, one.flags, place.video)
    done = {n: s for n, s in zip(numbers.tolist(), result["scenes"], strict=True) if s}
    try:
      if done:
        result |= recording_measures.measure(folder, done, given, true, exact)
    except Exception as error:  # of this benchmark; the other recordings go on
      traceback.print_exc()
      result |= {"status": FAILED, "reason": f"measuring failed: {error!r}"}
    (folder / _RESULT).write_text(json.dumps(result))
    lines += _describe(one, result)
  if not place.keep:
    shutil.rmtree(raw)
  return "\n".join(lines)


def _describe(treatment: Treatment, result: dict[str, Any]) -> list[str]:
  note = result["reason"]
  if result["status"] == DONE:
    note = "cameras {pixels:.3f} px, outlines {outline:.3f} px ({wide:+.3f})".format(**result)
  name = f"{treatment.subject} {treatment.fault} {treatment.seed} {treatment.name}"
  said = result["lines"] if treatment.name == PREPARED else []
  first = f"{name}: {result['status']} in {result['seconds']:.0f} s; {note}"
  return [first, *(f"    {line}" for line in said)]


def _prepare(
  raw: pathlib.Path, folder: pathlib.Path, numbers: np.ndarray, flags: Sequence[str], video: bool
) -> dict[str, Any]:
  """Runs the command, as from a shell: status, reason, scenes, printed lines, seconds.

  Args:
    raw: the recording.
    folder: gets the scenes.
    numbers: (T,) moments of the recording that are wanted.
    flags: further flags.
    video: whether the recording is video.
  """
  from jaxsplat_mouse.commands import console, prepare

  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
  chosen = f"{numbers[0]}:{numbers[-1] + 1}:{step}"
  arguments = [f"--format={'sdannce' if video else 'transforms'}", f"--input={raw}"]
  arguments += [f"--output={folder}", f"--frames={chosen}", *flags]
  said, refused, start = io.StringIO(), io.StringIO(), time.monotonic()
  with contextlib.redirect_stdout(said), contextlib.redirect_stderr(refused):
    try:
      status = console.run_command(prepare, ["prepare", *arguments])
    except Exception:  # one recording must not end the others
      status = 1
      traceback.print_exc()
  lines = [line.strip() for line in said.getvalue().splitlines() if line.strip()]
  problem = refused.getvalue().strip().replace(str(raw), "RECORDING")
  scenes = dict(_done_scenes(folder)) if status in (0, 3) else {}
  found = [scenes.get(int(number), "") for number in numbers]
  return {
    "status": DONE if any(found) else REFUSED,
    "reason": "" if any(found) else problem or "; ".join(lines[-2:]),
    "scenes": found,
    "lines": [*lines, *problem.splitlines()],
    "seconds": time.monotonic() - start,
  }


def _done_scenes(folder: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields index and scene folder of each moment that was prepared."""
  recording = json.loads((folder / "recording.json").read_text())
  for moment in recording["moments"]:
    if moment["status"] == "done":
      yield int(moment["index"]), str(folder / moment["scene"])


def read_result(treatment: Treatment, work: pathlib.Path) -> dict[str, Any] | None:
  """Returns what came of a treatment; None while there is no result."""
  try:
    return dict(json.loads((treatment.folder(work) / _RESULT).read_text()))
  except (FileNotFoundError, json.JSONDecodeError):
    return None


def forget_results(treatments: Sequence[Treatment], work: pathlib.Path) -> None:
  """Removes the results of an earlier run, so that everything is prepared again."""
  for treatment in treatments:
    (treatment.folder(work) / _RESULT).unlink(missing_ok=True)
