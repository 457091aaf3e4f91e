"""A fake run: a manifest of any length, a configuration, and pictures of ellipses."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report.reported_run import ReportedRun
from jaxsplat_mouse.report.scene_pictures import SHEETS_FOLDER, THUMBS_FOLDER

START = datetime.datetime(2026, 1, 5, 8, 0, tzinfo=datetime.UTC)
CONFIG = {
  "data.input": "/data/arena",
  "fit.model": "2dgs",
  "fit.num_gaussians": 20000,
  "fit.iterations": 1500,
  "render.num_views": 32,
  "render.image_size": 512,
  "seed": 0,
}


def empty_run(path: pathlib.Path, config: dict | None = None) -> ReportedRun:
  """The run of a folder that holds nothing yet."""
  run = ReportedRun(
    name=path.name, dataset=path / "dataset", report=path / "report", config=config or {}
  )
  run.dataset.mkdir(parents=True)
  run.report.mkdir()
  return run


def fake_run(path: pathlib.Path, count: int, *, pictures: bool = True) -> ReportedRun:
  """A run whose scenes 7, 47, ... failed and 11, 41, ... were rejected; it was started twice."""
  starts = [_start(START), _start(START + datetime.timedelta(hours=12))]
  run = dataclasses.replace(empty_run(path, CONFIG), starts=starts)
  (path / "config.json").write_text(json.dumps({"config": CONFIG, "runs": starts}))
  draw = np.random.default_rng(0)
  lines = []
  for i in range(count):
    record = _record(i, draw, first=0 if i <= 0.7 * count else int(0.7 * count))
    lines.append(json.dumps(record.to_json()) + "\n")
    if pictures and record.status != "failed":
      _draw(run.report, record.scene, draw)
  (run.dataset / scene_records.MANIFEST_FILE).write_text("".join(lines))
  return run


def _start(started: datetime.datetime) -> dict:
  return {
    "started": started.isoformat(),
    "command": "python -m jaxsplat_mouse.main --config=configs/2dgs.py --workdir=arena",
    "versions": {"jaxsplat-mouse": "0.0", "jax": "0.0"},
    "device": {"platform": "gpu", "kind": "Some GPU", "count": 1},
    "host": "lab",
  }


def _record(i: int, draw: np.random.Generator, *, first: int) -> SceneRecord:
  name = f"mouse{i % 12:02d}_frame_{i:05d}"
  seconds = 40 + 0.5 * (i - first) + draw.uniform(0, 3)
  ended = START + datetime.timedelta(hours=12 if first else 0, seconds=seconds)
  extra = {"finished": ended.isoformat(), "source": f"/data/arena/{name}", "warnings": []}
  recording = f"mouse{i % 12:02d}"
  if i % 40 == 7:
    view = i % 6
    error = f"/data/arena/{name}/images/cam_{view:03d}.png: frames[{view}].file_path: broken image"
    return SceneRecord(scene=name, status="failed", recording=recording, error=error, extra=extra)
  quality = float(draw.beta(6, 2))
  metrics = {
    "novel_fg_psnr": 17 + 12 * quality,
    "novel_iou": 0.9 + 0.09 * quality,
    "input_fg_psnr": 27 + 9 * quality + draw.normal(0, 0.5),
    "input_iou": min(0.999, 0.97 + 0.025 * quality),
    "input_ssim": 0.9 + 0.09 * quality,
  }
  if i % 25 == 3:
    extra["warnings"] = ["frames[2]: RGB on white; alpha is an estimate"]
  rejected = i % 30 == 11
  return SceneRecord(
    scene=name,
    status="rejected" if rejected else "done",
    recording=recording,
    metrics=metrics,
    seconds={"prepare": 0.21, "fit": 0.41, "output": 0.66},
    error=f"input_iou {metrics['input_iou']:.3f} is below 0.995" if rejected else "",
    extra={**extra, "num_gaussians": 18000 + i, "bytes": 5_100_000},
  )


def _draw(report: pathlib.Path, name: str, draw: np.random.Generator) -> None:
  for folder, size in ((SHEETS_FOLDER, (640, 520)), (THUMBS_FOLDER, (480, 120))):
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for k in range(4):
      x, y = (k + 0.5) * size[0] / 4, size[1] / 2
      wide, high = draw.uniform(30, 50), draw.uniform(18, 30)
      color = tuple(int(c) for c in draw.uniform(60, 160, 3))
      pen.ellipse((x - wide, y - high, x + wide, y + high), fill=color)
    (report / folder).mkdir(exist_ok=True)
    picture.save(report / folder / f"{name}.jpg", quality=80)
