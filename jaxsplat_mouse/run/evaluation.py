"""How good fits are at views that they were not made from.

Where a scene has held-out views these are the measure: cameras in the scene's own world, moved by
the stored transform. Where it has none, it is fitted again without each of its cameras in turn.
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
from jaxsplat_mouse.run.fit_store import SavedFit, unstack
from jaxsplat_mouse.run.outputs import own_rgba, render_held_out, score_truth
from jaxsplat_mouse.run.renders import drop_invisible, render_rgba
from jaxsplat_mouse.run.scene_input import SceneInput, start_fit
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Scene, observed_pixels, transform_scene

HELD_OUT, LEAVE_ONE_OUT = "held-out views", "leave one camera out"
_FOLDER, _METRICS_FILE = "evaluation", "metrics.json"
_PICTURES = 8

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """Scores of one scene.

  Attributes:
    scene: its name.
    kind: `HELD_OUT` or `LEAVE_ONE_OUT`.
    novel: mean metrics over views that the fit was not made from.
    seen: mean metrics over held-out views that are inputs too; empty where there are none.
    views: metrics by view, with `seen` telling which they are.
  """

  scene: str
  kind: str
  novel: dict[str, float]
  seen: dict[str, float]
  views: list[dict[str, Any]]


def evaluate_workdir(
  workdir: Workdir, targets: pathlib.Path | None, max_refits: int, say: Say
) -> tuple[list[Evaluation], dict[str, str]]:
  """Scores every finished scene of a workdir, and writes `evaluation/`.

  Args:
    workdir: of a run.
    targets: held-out views: a scene folder, or a folder with one for each scene by name; by default
      the `target/` beside a scene's `input/`.
    max_refits: scenes without held-out views that are fitted again; 0 for all.
    say: prints one line.

  Returns:
    evaluations, and the scenes that could not be evaluated with the reason.

  Raises:
    InputError: no run has been here, or nothing is finished.
  """
  config = workdir.read_config()
  records = scene_records.latest_records(workdir.dataset)
  names = [name for name, record in records.items() if record.status != "failed"]
  if not names:
    raise InputError(workdir.path, "", "no finished scene; expected the --workdir of a run")
  done: list[Evaluation] = []
  failures: dict[str, str] = {}
  refits = 0
  for name in names:
    try:
      saved = fit_store.load_fit(workdir, name)
      folder = _target_folder(targets, name, len(names)) if targets else None
      scene, _ = sources.read_source(saved.source)
      truth = sources.read_truth(saved.source, scene, folder=folder)
      if truth is None:
        refits += 1
        if max_refits and refits > max_refits:
          continue
        say(f"{name}: no held-out views, fitting again without each camera")
        scene = transform_scene(scene, saved.similarity)
        one, picture = _leave_one_out(saved, scene, _settings_of(config), say)
      else:
        one, picture = _held_out(saved, truth)
      _write_picture(workdir, name, picture)
    except (InputError, OSError) as error:
      failures[name] = str(error)
      say(f"{name}: not evaluated: {error}")
      continue
    done.append(one)
    say(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in one.novel.items()))
  if max_refits and refits > max_refits:
    say(f"{refits - max_refits} more scenes have no held-out views; --max_scenes=0 takes them too")
  _write_metrics(workdir, done, failures)
  return done, failures


def _target_folder(targets: pathlib.Path, name: str, scenes: int) -> pathlib.Path:
  """The scene folder with the held-out views of one scene."""
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
  """The settings of a run from its `config.json`."""
  nested: dict[str, Any] = {}
  for key, value in flat.items():
    *sections, name = key.split(".")
    into = nested
    for section in sections:
      into = into.setdefault(section, {})
    into[name] = tuple(value) if isinstance(value, list) else value
  return Settings.from_config(nested)


def _held_out(saved: SavedFit, truth: sources.Truth) -> tuple[Evaluation, bytes]:
  rendered = render_held_out(saved, truth)
  novel, rows = score_truth(truth, rendered)
  seen = metrics.average(row for row, own in zip(rows, truth.seen, strict=True) if own)
  views = [{**row, "seen": bool(own)} for row, own in zip(rows, truth.seen, strict=True)]
  one = Evaluation(scene=saved.name, kind=HELD_OUT, novel=novel, seen=seen, views=views)
  # A scene whose held-out views are all its own inputs is still worth a picture.
  shown = np.flatnonzero(~truth.seen) if not truth.seen.all() else np.arange(len(rows))
  picked = shown[np.linspace(0, len(shown) - 1, min(_PICTURES, len(shown))).round().astype(int)]
  pairs = [(truth.rgba[i], rendered[i]) for i in picked]
  return one, _draw(one, pairs, [f"view {i}: {rows[i]['fg_psnr']:.1f} dB" for i in picked])


def _leave_one_out(
  saved: SavedFit, scene: Scene, settings: Settings, say: Say
) -> tuple[Evaluation, bytes]:
  """Fits a canonical scene without each of its cameras and scores the camera left out."""
  cameras = np.flatnonzero(scene.view_mask)
  splats = _fit_without_each(saved, scene, cameras, settings, say)
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


def _fit_without_each(
  saved: SavedFit, scene: Scene, cameras: np.ndarray, settings: Settings, say: Say
) -> list[Gaussians]:
  """Fits a canonical scene without each of its cameras; Gaussians for every camera left out."""
  seed = int(saved.info.get("seed", settings.seed))
  prepared = []
  for camera in cameras:
    kept = jax.tree.map(lambda leaf, i=camera: np.delete(np.asarray(leaf), i, 0), scene)
    try:
      kept, gaussians = start_fit(kept, settings.fit, settings.hull, seed)
    except ValueError as error:
      raise InputError(str(saved.source), f"without camera {camera}", str(error)) from None
    prepared.append(
      SceneInput(
        source=saved.source,
        digest=saved.digest,
        scene=kept,
        similarity=saved.similarity,
        gaussians=gaussians,
        seed=seed,
      )
    )
  size = settings.batch.scenes or batches.auto_batch(settings.fit.num_gaussians)
  driver = make_driver(settings.fit, settings.checkpoint)
  found: list[Gaussians] = []
  for start in range(0, len(prepared), size):
    members = prepared[start : start + size]
    fitted = driver.fit(*batches.stack_batch(members, settings.fit))
    for i in range(len(members)):
      if i in fitted.failures:
        camera = cameras[start + i]
        raise InputError(str(saved.source), f"without camera {camera}", fitted.failures[i])
      found.append(drop_invisible(*unstack((fitted.state.result, fitted.state.alive), i)))
    say(f"{saved.name}: {len(found)} of {len(prepared)} cameras")
  return found


def _draw(
  one: Evaluation, pairs: Sequence[tuple[np.ndarray, np.ndarray]], captions: Sequence[str]
) -> bytes:
  """Truth, render and error of some views as PNG bytes."""
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


def _write_picture(workdir: Workdir, name: str, picture: bytes) -> None:
  folder = workdir.path / _FOLDER
  folder.mkdir(exist_ok=True)
  atomic.write_bytes(folder / f"{name}.png", picture)


def _write_metrics(workdir: Workdir, done: Sequence[Evaluation], failures: dict[str, str]) -> None:
  clean = lambda row: {k: None if v != v else v for k, v in row.items()}  # NaN is no JSON
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
  folder = workdir.path / _FOLDER
  folder.mkdir(exist_ok=True)
  atomic.write_bytes(folder / _METRICS_FILE, (json.dumps(value, indent=2) + "\n").encode())
