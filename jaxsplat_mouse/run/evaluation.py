"""Scores the fits of a run at views that they were not made from.

If a scene has held-out views, its fit is rendered at their cameras, moved into the canonical frame.
If it has none, it is fitted again without each of its cameras in turn.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse import metrics
from jaxsplat_mouse.dataset import camera_file, scene_records, sources
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.run import batches, fit_store
from jaxsplat_mouse.run.fit_progress import make_driver
from jaxsplat_mouse.run.fit_store import SavedFit
from jaxsplat_mouse.run.outputs import own_rgba, render_held_out, score_truth
from jaxsplat_mouse.run.renders import render_rgba
from jaxsplat_mouse.run.scene_input import SceneInput, read_canonical_scene, start_fit
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Scene, observed_pixels

HELD_OUT, LEAVE_ONE_OUT = "held-out views", "leave one camera out"
_FOLDER, _METRICS_FILE = "evaluation", "metrics.json"
_PICTURES = 8

PrintLine = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """Scores of one scene.

  Attributes:
    scene: its name.
    kind: `HELD_OUT` or `LEAVE_ONE_OUT`.
    novel: mean metrics over views that the fit was not made from.
    seen: mean metrics over held-out views that are inputs too; empty if there are none.
    views: metrics of each view, and `seen`: whether it is an input too.
  """

  scene: str
  kind: str
  novel: dict[str, float]
  seen: dict[str, float]
  views: list[dict[str, Any]]


def evaluate_workdir(
  workdir: Workdir, targets: pathlib.Path | None, max_refits: int, print_line: PrintLine
) -> tuple[list[Evaluation], dict[str, str]]:
  """Scores every finished scene of a workdir and writes `evaluation/`.

  Args:
    workdir: of a run.
    targets: held-out views: a scene folder, or a folder with one for each scene by name; by default
      the `target/` beside the `input/` of a scene.
    max_refits: how many scenes without held-out views are fitted again; 0 for all.
    print_line: prints one line.

  Returns:
    evaluations, and the reason for every scene that could not be evaluated, by name.

  Raises:
    InputError: the folder contains no run, or no scene is finished.
  """
  config = workdir.read_config()
  names = _finished_scenes(workdir)
  done: list[Evaluation] = []
  failures: dict[str, str] = {}
  refits = 0
  for name in names:
    try:
      saved = fit_store.load_fit(workdir, name)
      folder = _target_folder(targets, name, len(names)) if targets else None
      scene, _ = sources.read_source(saved.source)
      truth = sources.read_truth(saved.source, scene, folder=folder)
      refits += truth is None
      if truth is None and max_refits and refits > max_refits:
        continue
      if truth is None:
        print_line(f"{name}: no held-out views, fitting again without each camera")
        agreement = saved.info.get("agreement")
        scene = read_canonical_scene(saved.source, saved.similarity, agreement)
        one, picture = _leave_one_out(saved, scene, _settings_of(config), print_line)
      else:
        one, picture = _score_held_out(saved, truth)
      _write(workdir, f"{name}.png", picture)
    except (InputError, OSError) as error:
      failures[name] = str(error)
      print_line(f"{name}: not evaluated: {error}")
      continue
    done.append(one)
    print_line(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in one.novel.items()))
  if max_refits and refits > max_refits:
    left = refits - max_refits
    print_line(f"{left} more scenes have no held-out views; --max_scenes=0 includes them")
  _write(workdir, _METRICS_FILE, _metrics_json(done, failures))
  return done, failures


def _finished_scenes(workdir: Workdir) -> list[str]:
  records = scene_records.latest_records(workdir.dataset)
  names = [name for name, record in records.items() if record.status != "failed"]
  if not names:
    raise InputError(workdir.path, "", "no finished scene; expected the --workdir of a run")
  return names


def _target_folder(targets: pathlib.Path, name: str, scenes: int) -> pathlib.Path:
  """Returns the scene folder with the held-out views of one scene."""
  candidates = [targets / name / "target", targets / name]
  if scenes == 1:
    candidates += [targets, targets / "target"]
  for folder in candidates:
    if (folder / camera_file.CAMERAS_FILE).is_file():
      return folder
  raise InputError(
    targets, name, f"no views of this scene; expected {name}/{camera_file.CAMERAS_FILE}"
  )


def _settings_of(flat: dict[str, Any]) -> Settings:
  """Returns the settings of a run from its `config.json`."""
  nested: dict[str, Any] = {}
  for key, value in flat.items():
    *sections, name = key.split(".")
    into = nested
    for section in sections:
      into = into.setdefault(section, {})
    into[name] = tuple(value) if isinstance(value, list) else value
  return Settings.from_config(nested)


def _score_held_out(saved: SavedFit, truth: sources.Truth) -> tuple[Evaluation, bytes]:
  """Scores a fit at held-out views; returns the scores and a picture of some views."""
  rendered = render_held_out(saved, truth)
  novel, rows = score_truth(truth, rendered)
  seen = metrics.average(row for row, own in zip(rows, truth.seen, strict=True) if own)
  views = [{**row, "seen": bool(own)} for row, own in zip(rows, truth.seen, strict=True)]
  one = Evaluation(scene=saved.name, kind=HELD_OUT, novel=novel, seen=seen, views=views)
  # If all held-out views are inputs, the picture shows those.
  shown = np.flatnonzero(~truth.seen) if not truth.seen.all() else np.arange(len(rows))
  picked = shown[np.linspace(0, len(shown) - 1, min(_PICTURES, len(shown))).round().astype(int)]
  pairs = [(truth.rgba[i], rendered[i]) for i in picked]
  return one, _draw(one, pairs, [f"view {i}: {rows[i]['fg_psnr']:.1f} dB" for i in picked])


def _leave_one_out(
  saved: SavedFit, scene: Scene, settings: Settings, print_line: PrintLine
) -> tuple[Evaluation, bytes]:
  """Fits a canonical scene without each of its cameras and scores the fit at that camera."""
  cameras = np.flatnonzero(scene.view_mask)
  prepared = [_without_camera(saved, scene, camera, settings) for camera in cameras.tolist()]
  splats = _fit_prepared(prepared, cameras, settings, print_line)
  photographs, observed = own_rgba(scene), observed_pixels(scene)
  rows, pairs = [], []
  for photograph, camera, gaussians in zip(photographs, cameras, splats, strict=True):
    one_camera = jax.tree.map(np.asarray, scene.cameras)[np.array([camera])]
    rendered = render_rgba(gaussians, one_camera, saved.filter_width)[0].copy()
    rendered[~observed[camera]] = 0
    rows.append(metrics.compare_view(rendered / np.float32(255), photograph))
    pairs.append((photograph, rendered))
  one = Evaluation(
    scene=saved.name,
    kind=LEAVE_ONE_OUT,
    novel=metrics.average(rows),
    seen={},
    views=[{**row, "seen": False} for row in rows],
  )
  captions = [f"camera {i}: {row['fg_psnr']:.1f} dB" for i, row in zip(cameras, rows, strict=True)]
  return one, _draw(one, pairs[:_PICTURES], captions[:_PICTURES])


def _without_camera(saved: SavedFit, scene: Scene, camera: int, settings: Settings) -> SceneInput:
  """Returns a canonical scene without one of its cameras, ready to be fitted."""
  seed = int(saved.info.get("seed", settings.seed))
  kept = jax.tree.map(lambda leaf: np.delete(np.asarray(leaf), camera, 0), scene)
  try:
    kept, gaussians = start_fit(kept, settings.fit, settings.hull, seed)
  except ValueError as error:
    raise InputError(str(saved.source), f"without camera {camera}", str(error)) from None
  return SceneInput(
    source=saved.source,
    digest=saved.digest,
    scene=kept,
    similarity=saved.similarity,
    gaussians=gaussians,
    seed=seed,
  )


def _fit_prepared(
  prepared: Sequence[SceneInput], cameras: np.ndarray, settings: Settings, print_line: PrintLine
) -> list[Gaussians]:
  """Fits one scene without each of its `cameras`; returns the visible Gaussians of each fit."""
  source = prepared[0].source
  size = settings.batch.scenes or batches.auto_batch(settings.fit.num_gaussians)
  driver = make_driver(settings.fit, settings.checkpoint)
  found: list[Gaussians] = []
  for start in range(0, len(prepared), size):
    members = prepared[start : start + size]
    fitted = driver.fit(*batches.stack_batch(members, settings.fit))
    for i in range(len(members)):
      if i in fitted.failures:
        camera = cameras[start + i]
        raise InputError(str(source), f"without camera {camera}", fitted.failures[i])
      found.append(batches.result_gaussians(fitted.state, i))
    print_line(f"{source.name}: {len(found)} of {len(prepared)} cameras")
  return found


def _draw(
  one: Evaluation, pairs: Sequence[tuple[np.ndarray, np.ndarray]], captions: Sequence[str]
) -> bytes:
  """Draws truth, render and error of some views; returns PNG bytes."""
  rows: dict[str, list[np.ndarray]] = {"truth": [], "render": [], "error": []}
  for truth, rendered in pairs:
    box = contact_sheet.animal_box([truth[..., 3], rendered[..., 3] / 255.0])
    cut = np.s_[box[1] : box[3], box[0] : box[2]]
    real, made = contact_sheet.rgba_to_rgb(truth[cut]), contact_sheet.rgba_to_rgb(rendered[cut])
    rows["truth"].append(real)
    rows["render"].append(made)
    rows["error"].append(contact_sheet.color_error(made, real))
  notes = f"{one.kind}: fg PSNR {one.novel.get('fg_psnr', np.nan):.2f} dB   ·   "
  notes += f"IoU {one.novel.get('iou', np.nan):.4f}   ·   error: white 0, darkest 0.25"
  sheet = contact_sheet.draw_sheet(
    one.scene, notes, [contact_sheet.SheetRow(k, v) for k, v in rows.items()], captions
  )
  buffer = io.BytesIO()
  sheet.save(buffer, "PNG")
  return buffer.getvalue()


def _metrics_json(done: Sequence[Evaluation], failures: dict[str, str]) -> bytes:
  clean = lambda row: {k: None if v != v else v for k, v in row.items()}  # JSON has no NaN
  value = {
    "mean": clean(metrics.average(one.novel for one in done if one.novel)),
    "scenes": {
      one.scene: {
        "kind": one.kind,
        "novel": clean(one.novel),
        "seen": clean(one.seen),
        "views": [clean(row) for row in one.views],
      }
      for one in done
    },
    "failed": failures,
  }
  return (json.dumps(value, indent=2) + "\n").encode()


def _write(workdir: Workdir, name: str, content: bytes) -> None:
  folder = workdir.path / _FOLDER
  folder.mkdir(exist_ok=True)
  atomic.write_bytes(folder / name, content)
