"""What a finished fit becomes: a scene of the dataset, metrics, a picture."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from PIL import Image

from jaxsplat_mouse import dataset, metrics, sources
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.gaussians import model_name
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.pipeline import contact_sheet
from jaxsplat_mouse.pipeline.fits import SavedFit, render_key
from jaxsplat_mouse.pipeline.settings import Settings
from jaxsplat_mouse.pipeline.views import render_groups, render_in_parts, select
from jaxsplat_mouse.pipeline.workdir import Workdir
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.sources import Truth

_TRUTH_VIEWS = 8  # of the built-in mice, whose truth is made while one waits
_SHEET_VIEWS = 8
MAPS = ("rgb", "alpha", "depth", "normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
  """What the device makes of one fit, on the host.

  Attributes:
    orbit: rgb and alpha of consecutive cameras of the dataset.
    inputs: `MAPS` at the cameras of the photographs, (V, H, W, ...), empty outside what they saw.
    truth: held-out views, where they are scored at once.
    truth_rgba: the fit at their cameras, uint8.
    seconds: wall time.
  """

  orbit: list[dict[str, np.ndarray]]
  inputs: dict[str, np.ndarray]
  truth: Truth | None
  truth_rgba: list[np.ndarray]
  seconds: float


def render_fit(saved: SavedFit, scene: Scene, settings: Settings) -> Rendered:
  """Renders all that is written of a fit; the part that takes the device.

  Args:
    saved: the fit.
    scene: its views in the canonical frame.
    settings: of the run.
  """
  started = time.monotonic()
  truth = None
  if saved.source.folder is None:
    truth = sources.read_truth(saved.source, scene, num_views=_TRUTH_VIEWS)
  return Rendered(
    orbit=list(render_in_parts(saved.gaussians, _orbit(settings))),
    inputs=render_inputs(saved, scene),
    truth=truth,
    truth_rgba=render_truth(saved, truth) if truth else [],
    seconds=time.monotonic() - started,
  )


def _orbit(settings: Settings) -> Cameras:
  return generate_camera_poses(**dataclasses.asdict(settings.render))


def write_outputs(
  workdir: Workdir,
  settings: Settings,
  saved: SavedFit,
  scene: Scene,
  recording: str,
  rendered: Rendered,
) -> dataset.SceneRecord:
  """Writes a fit into the dataset, scores it and draws its contact sheet; takes no device.

  Args:
    workdir: where to.
    settings: of the run.
    saved: the fit.
    scene: its views in the canonical frame.
    recording: that it belongs to.
    rendered: what `render_fit` gave.

  Returns:
    the scene's line for the manifest, which is not written here.

  Raises:
    OSError: the disk is full or not writable.
  """
  started = time.monotonic()
  rgba = np.concatenate([dataset.to_rgba8(**part) for part in rendered.orbit])
  hashes = dataset.write_scene(
    workdir.dataset,
    saved.name,
    rgba,
    _orbit(settings),
    extra={"source": str(saved.source), "input_to_canonical": saved.similarity.to_json()},
    png_level=settings.dataset.png_level,
    overwrite=True,
  )
  scores = score_inputs(rendered.inputs, scene)
  if rendered.truth is not None:
    novel = score_truth(rendered.truth, rendered.truth_rgba)[0]
    scores |= {f"novel_{name}": value for name, value in novel.items()}
  if settings.report.contact_sheets:
    sheet = draw_contact_sheet(saved, scene, rendered.inputs, rgba, scores)
    _save_picture(workdir, saved.name, sheet)
  output = rendered.seconds + time.monotonic() - started
  seconds = {**saved.info.get("seconds", {}), "output": output}
  return dataset.SceneRecord(
    scene=saved.name,
    status="done",
    recording=recording,
    metrics=dict(scores),
    transform=saved.similarity.to_json(),
    seconds={k: round(v, 3) for k, v in seconds.items()},
    hashes=hashes,
    extra={
      "source": str(saved.source),
      "digest": saved.digest,
      "fit_key": saved.fit_key,
      "render_key": render_key(settings),
      "num_gaussians": len(saved.gaussians.means),
      "warnings": list(saved.info.get("warnings", ())),
    },
  )


def _save_picture(workdir: Workdir, name: str, picture: Image.Image) -> None:
  """Writes a contact sheet; a scene is done without one."""
  buffer = io.BytesIO()
  picture.save(buffer, "PNG", compress_level=6)
  try:
    workdir.report.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(workdir.report / f"contact_sheet_{name}.png", buffer.getvalue())
  except OSError as error:
    logging.warning("%s: no contact sheet (%s)", name, error.strerror)


def render_inputs(saved: SavedFit, scene: Scene) -> dict[str, np.ndarray]:
  """`MAPS` of a fit at the cameras of its own photographs, empty outside what they saw."""
  real = np.asarray(scene.view_mask)
  parts = list(render_in_parts(saved.gaussians, select(scene.cameras, real), MAPS))
  maps = {name: np.concatenate([part[name] for part in parts]) for name in MAPS}
  outside = ~observed_pixels(scene)[real]
  maps["rgb"] = np.where(outside[..., None], 0, maps["rgb"])
  maps["alpha"] = np.where(outside, 0, maps["alpha"])
  return maps


def observed_pixels(scene: Scene) -> np.ndarray:
  """Which pixels (V, H, W) the cameras really saw."""
  height, width = scene.alphas.shape[1:]
  x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
  x0, y0, x1, y1 = np.asarray(scene.frames).T[:, :, None, None]
  return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)


def own_rgba(scene: Scene) -> np.ndarray:
  """The photographs as straight RGBA (V, H, W, 4)."""
  real = np.asarray(scene.view_mask)
  alphas = np.asarray(scene.alphas)[real]
  return np.concatenate([np.asarray(scene.images)[real], alphas[..., None]], -1)


def score_inputs(maps: Mapping[str, np.ndarray], scene: Scene) -> dict[str, float]:
  """`input_*` metrics: how well a fit shows the photographs it was made from."""
  rendered = dataset.to_rgba8(maps["rgb"], maps["alpha"]) / np.float32(255)
  rows = [metrics.compare_view(a, b) for a, b in zip(rendered, own_rgba(scene), strict=True)]
  return {f"input_{name}": value for name, value in metrics.average(rows).items()}


def render_truth(saved: SavedFit, truth: Truth) -> list[np.ndarray]:
  """A fit at the cameras of held-out views, uint8 RGBA."""
  groups = []
  for index, cameras in truth.groups:
    moved = saved.similarity.world_to_camera(cameras.world_to_camera).astype(np.float32)
    groups.append((index, dataclasses.replace(cameras, world_to_camera=moved)))
  return render_groups(saved.gaussians, groups)


def score_truth(
  truth: Truth, rendered: Sequence[np.ndarray]
) -> tuple[dict[str, float], list[dict[str, float]]]:
  """Mean metrics of the views that are no input's, and metrics by view."""
  rows = [
    metrics.compare_view(a / np.float32(255), b) for a, b in zip(rendered, truth.rgba, strict=True)
  ]
  novel = [row for row, seen in zip(rows, truth.seen, strict=True) if not seen]
  return metrics.average(novel), rows


def draw_contact_sheet(
  saved: SavedFit,
  scene: Scene,
  maps: Mapping[str, np.ndarray],
  orbit: np.ndarray,
  scores: Mapping[str, float],
) -> Image.Image:
  """Photographs, renders, depth, normals, and new views of one scene.

  Args:
    saved: the fit.
    scene: its views in the canonical frame.
    maps: what `render_inputs` gave.
    orbit: uint8 RGBA of the dataset.
    scores: metrics for the line below the title.
  """
  count = len(maps["alpha"])
  picked = np.unique(np.linspace(0, count - 1, min(count, _SHEET_VIEWS)).round().astype(int))
  photographs, real = own_rgba(scene), np.flatnonzero(scene.view_mask)
  rendered = dataset.to_rgba8(maps["rgb"], maps["alpha"])
  rows: dict[str, list[np.ndarray]] = {"photograph": [], "render": [], "depth": [], "normal": []}
  for i in picked:
    box = contact_sheet.animal_box([photographs[i, ..., 3], maps["alpha"][i]])
    cut = np.s_[box[1] : box[3], box[0] : box[2]]
    alpha, depth = maps["alpha"][i][cut], maps["depth"][i][cut]
    near, far = _depth_range(depth, alpha)
    pose = np.asarray(scene.cameras.world_to_camera)[real[i]]
    rows["photograph"].append(contact_sheet.on_white(photographs[i][cut]))
    rows["render"].append(contact_sheet.on_white(rendered[i][cut]))
    rows["depth"].append(contact_sheet.color_depth(depth, alpha, near, far))
    rows["normal"].append(contact_sheet.color_normal(maps["normal"][i][cut], alpha, pose))
  new = np.linspace(0, len(orbit), len(picked), endpoint=False).astype(int)
  rows["new view"] = [_cut_on_white(orbit[i]) for i in new]
  names = {"input_fg_psnr": "input fg PSNR {:.1f} dB", "input_iou": "IoU {:.3f}"}
  names |= {"novel_fg_psnr": "new views fg PSNR {:.1f} dB", "novel_iou": "IoU {:.3f}"}
  told = [text.format(scores[k]) for k, text in names.items() if k in scores]
  notes = f"{len(saved.gaussians.means):,} {model_name(saved.gaussians).upper()} Gaussians"
  return contact_sheet.draw_sheet(
    saved.name,
    "   ·   ".join([notes, *told]),
    [contact_sheet.Row(label, images) for label, images in rows.items()],
  )


def _cut_on_white(rgba: np.ndarray) -> np.ndarray:
  """The animal of a uint8 RGBA view on white."""
  x0, y0, x1, y1 = contact_sheet.animal_box([rgba[..., 3] / 255.0])
  return contact_sheet.on_white(rgba[y0:y1, x0:x1])


def _depth_range(depth: np.ndarray, alpha: np.ndarray) -> tuple[float, float]:
  shown = depth[alpha > 0.5]
  if len(shown) == 0:
    return 0.0, 1.0
  low, high = np.percentile(shown, [1, 99])
  return float(low), float(high)
