"""Fits and scores prepared recordings, for `recordings.py`, and prints their table."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import mice, quality, recording_treatments
from benchmarks.recording_faults import FAULTS
from benchmarks.recording_files import MM
from benchmarks.recording_films import Film, load_film
from benchmarks.recording_treatments import DONE, GIVEN, PREPARED, Place, Treatment
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.runtime.threads import ordered_map
from jaxsplat_mouse.scene import Similarity, crop_shape

_NO_SOLID = "the silhouettes of the scene have no common solid"
_SCORED_AT_ONCE = 8
_WAIT = 0.5  # seconds between two looks for a result

_NAMED = "warning: Camera", "warning: sync", "sync: applied"  # lines that name cameras
_SAID = 300  # characters of such a line
_NO_LOSS = 0.1  # dB, too little to say which share of it is won back

Row = dict[str, Any]
Work = tuple[Row, quality.Trial]
Exact = dict[tuple[str, int, int], Row]  # rows without faults, by subject, moment and seed


def fit_treatments(
  treatments: Sequence[Treatment], place: Place, recipe: quality.Recipe, batch: int
) -> Iterator[list[Row]]:
  """Yields rows of scores as the treatments' scenes become ready and are fitted, batch by batch.

  Args:
    treatments: in the order in which they are prepared.
    place: where they are.
    recipe: how to fit.
    batch: scenes fitted together.
  """
  films: dict[str, Film] = {}
  waiting: list[Work] = []
  shape = 0, 0
  for treatment in treatments:
    result = _wait_for(treatment, place.work)
    if treatment.subject not in films:
      films[treatment.subject] = _without_pictures(treatment.subject, place)
    rows, trials = _make_trials(treatment, result, films[treatment.subject])
    if rows:
      yield rows
    waiting += trials
    last = treatment is treatments[-1]
    while waiting and (last or len(waiting) >= batch):
      some, waiting = waiting[:batch], waiting[batch:]
      shape = _common_shape(some, shape)
      yield _fit(some, recipe, shape)


def find_unfinished(
  treatments: Sequence[Treatment], rows: Sequence[Row], moments: int
) -> tuple[list[Treatment], list[Row]]:
  """Returns the treatments that lack rows of some of their moments, and the rows of the others."""
  name = lambda row: (row["subject"], row["fault"], row["seed"], row["treatment"])
  counts = collections.Counter(map(name, rows))
  done = {key for key, count in counts.items() if count == moments}
  left = [t for t in treatments if (t.subject, t.fault, t.seed, t.name) not in done]
  return left, [row for row in rows if name(row) in done]


def _common_shape(work: Sequence[Work], least: tuple[int, int]) -> tuple[int, int]:
  """Returns the crops' height and width, which only grow: a new shape is compiled anew."""
  height, width = crop_shape([trial.scene for _, trial in work])
  return max(height, least[0]), max(width, least[1])


def _wait_for(treatment: Treatment, work: pathlib.Path) -> dict[str, Any]:
  """Waits until a treatment has a result; ends where the process that makes them has ended."""
  parent = os.getppid()
  while True:
    result = recording_treatments.read_result(treatment, work)
    if result is not None:
      return result
    if os.getppid() != parent:
      raise SystemExit("recordings are no longer prepared")
    time.sleep(_WAIT)


def _without_pictures(subject: str, place: Place) -> Film:
  film = load_film(subject, place.size, place.cache)
  return dataclasses.replace(film, rgba=film.rgba[:0])


def _make_trials(
  treatment: Treatment, result: dict[str, Any], film: Film
) -> tuple[list[Row], list[Work]]:
  """Returns rows of moments that have no scene, and trials of the others with their rows."""
  lost: list[Row] = []
  trials: list[Work] = []
  for place, (moment, truth) in enumerate(zip(film.scored, film.truth, strict=True)):
    row = {
      "subject": treatment.subject,
      "fault": treatment.fault,
      "treatment": treatment.name,
      "seed": treatment.seed,
      "moment": int(moment),
      **{key: result.get(key) for key in ("pixels", "outline", "wide")},
      "prepare_seconds": result["seconds"],
      "refused": result["reason"],
      "lines": result["lines"] if place == 0 else [],
    }
    scene = result["scenes"][place] if result["status"] == DONE else ""
    if not scene:
      lost.append({**row, "refused": row["refused"] or "this moment was left out"})
      continue
    try:
      novel = _novel_cameras(film.novel, Similarity.from_json(result["similarity"]))
      groups = [(np.arange(len(truth)), novel)]
      name = " ".join(str(row[k]) for k in ("subject", "moment", "fault", "seed", "treatment"))
      read = facelift.read_scene(scene).scene
      exact = list(mice.to_unit_floats(truth))
      trials.append((row, quality.canonical_trial(name, read, groups, exact)))
    except (ValueError, InputError) as error:
      lost.append({**row, "refused": f"{_NO_SOLID} ({error})"})
  return lost, trials


def _novel_cameras(novel: Cameras, shared: Similarity) -> Cameras:
  """Returns cameras of the film's world in the world of the prepared scenes, millimetres."""
  poses = np.array(novel.world_to_camera, np.float64)
  poses[:, :3, 3] *= MM
  return dataclasses.replace(novel, world_to_camera=shared.world_to_camera(poses))


def _fit(work: Sequence[Work], recipe: quality.Recipe, shape: tuple[int, int]) -> list[Row]:
  """Fits trials as one batch; their rows with scores."""
  trials, seeds = [trial for _, trial in work], [row["seed"] for row, _ in work]
  fits, seconds = quality.fit_trials(trials, seeds, recipe, least_shape=shape)
  pairs = list(zip(trials, fits, strict=True))
  scores = ordered_map(lambda pair: quality.score(*pair, recipe), pairs, _SCORED_AT_ONCE)
  return [
    {**row, "fit_seconds": seconds / len(work), **found}
    for (row, _), (_, found) in zip(work, scores, strict=True)
  ]


def make_table(rows: Sequence[Row]) -> str:
  """Returns scores by fault, as given and as prepared, with what is lost and won back.

  Losses are against the same moments of the recording without faults, as given; what was refused
  counts on neither side. Recovered is of the moments that have a score either way.
  """
  lines = [
    "| fault | given: px, outline px · fg PSNR / IoU · lost | prepared: likewise | recovered"
    " | to reach | fits |",
    "| --- | --- | --- | --- | --- | --- |",
  ]
  exact = {_key(r): r for r in rows if (r["fault"], r["treatment"]) == ("none", GIVEN)}
  for fault in [name for name in FAULTS if any(r["fault"] == name for r in rows)]:
    own = [r for r in rows if r["fault"] == fault]
    ways = [[r for r in own if r["treatment"] == name] for name in (GIVEN, PREPARED)]
    cells = " | ".join(_cell(kept, exact) for kept in ways)
    limit = FAULTS[fault].most_lost
    aim = "" if limit is None else f"{limit:.2f}"
    scored = sum("fg_psnr" in r for r in own)
    lines.append(f"| {fault} | {cells} | {_recovered(ways, exact)} | {aim} | {scored} |")
  return "\n".join([*lines, "", *_remarks(rows)])


def _losses(rows: Sequence[Row], exact: Exact) -> dict[tuple[str, int, int], float]:
  """Returns the loss in dB of each moment that has a score, and one without faults."""
  scored = [(_key(r), r) for r in rows if "fg_psnr" in r]
  return {
    key: exact[key]["fg_psnr"] - row["fg_psnr"]
    for key, row in scored
    if "fg_psnr" in exact.get(key, {})
  }


def _recovered(ways: Sequence[Sequence[Row]], exact: Exact) -> str:
  before, after = (_losses(rows, exact) for rows in ways)
  both = [key for key in before if key in after]
  lost = float(np.mean([before[key] for key in both])) if both else 0.0
  if lost < _NO_LOSS:
    return ""
  return f"{1 - float(np.mean([after[key] for key in both])) / lost:.0%}"


def _key(row: Row) -> tuple[str, int, int]:
  return row["subject"], row["moment"], row["seed"]


def _cell(rows: Sequence[Row], exact: Exact) -> str:
  """Returns errors, scores and the loss of one treatment."""
  scored = [r for r in rows if "fg_psnr" in r]
  refused = len(rows) - len(scored)
  note = f"refused {refused} of {len(rows)}" if refused else ""
  if not scored:
    return note
  mean = lambda name: float(np.mean([r[name] for r in scored]))
  losses = list(_losses(scored, exact).values())
  lost = f"{np.mean(losses):+.2f}" if losses else "-"
  text = f"{mean('pixels'):.2f}, {mean('outline'):.2f} · {mean('fg_psnr'):.2f} / {mean('iou'):.4f}"
  return f"{text} · {lost}{'; ' + note if note else ''}"


def _remarks(rows: Sequence[Row]) -> list[str]:
  """Returns the reasons of refusals, and the lines of `prepare` that name cameras, by fault."""
  found: dict[str, int] = {}
  for row in rows:
    if row["treatment"] != PREPARED or not row["lines"]:  # once for each recording
      continue
    said = [line for line in row["lines"] if line.startswith(_NAMED)]
    for text in [row["refused"]] if row["refused"] else said:
      key = f"{row['fault']}: {text[:_SAID]}"
      found[key] = found.get(key, 0) + 1
  return [f"{count} x {text}" for text, count in sorted(found.items())]
