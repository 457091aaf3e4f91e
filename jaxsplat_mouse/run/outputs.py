"""Turns a fit into a scene of the dataset, metrics and pictures."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse import metrics
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.dataset import scene_records, sources, writer
from jaxsplat_mouse.dataset.sources import Truth
from jaxsplat_mouse.gaussians import Gaussians, model_name
from jaxsplat_mouse.report import scene_pictures, turntable
from jaxsplat_mouse.run.fit_store import SavedFit, render_key
from jaxsplat_mouse.run.quality_scores import (
  compile_hull_reference,
  quality_scores,
  render_hull_reference,
  sampling_strides,
)
from jaxsplat_mouse.run.renders import InputRenders, OrbitRenders, compile_renders, render_groups
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.scene import (
  Scene,
  Similarity,
  as_unit_floats,
  observed_pixels,
  without_padding,
)

ViewGroup = tuple[np.ndarray, Cameras]  # view indices, and cameras of one image size
_TRUTH_VIEWS = 8  # of the built-in mice, whose truth is rendered during the run


class SceneRenders:
  """All renders of one fit: first started on the device, later fetched, then written.

  Attributes:
    scene: the photographs in the canonical frame.
    orbit: renders of the dataset's images, and of maps for the scores.
    inputs: renders at the cameras of the photographs.
    reference: what `render_hull_reference` returned; None if scores are switched off.
    truth: held-out views that are scored during the run, those of the built-in mice; or None.
    truth_rgba: the fit at their cameras, one uint8 (H, W, 4) each.
    nbytes: memory of the renders, on the device and, after `fetch`, on the host.
    seconds: wall time so far.
    orbit_rgba: the dataset's images (V, S, S, 4) uint8, after `fetch`.
    orbit_maps: see `OrbitRenders.fetch`, after `fetch`.
    input_maps: see `InputRenders.fetch`, empty outside the photographs, after `fetch`.
  """

  def __init__(self, saved: SavedFit, scene: Scene, settings: Settings):
    """Starts all renders of a fit on the device.

    Args:
      saved: the fit.
      scene: its photographs in the canonical frame.
      settings: of the run.
    """
    started = time.monotonic()
    cameras, width = _orbit(settings), saved.filter_width
    self.scene, self.truth = scene, None
    if saved.source.folder is None:
      self.truth = sources.read_truth(saved.source, scene, num_views=_TRUTH_VIEWS)
    self.orbit = OrbitRenders(saved.gaussians, cameras, width, *sampling_strides(cameras))
    self.inputs = InputRenders(saved.gaussians, without_padding(scene).cameras, width)
    self.reference = render_hull_reference(scene, cameras) if settings.report.quality else None
    self.truth_rgba = render_held_out(saved, self.truth) if self.truth else []
    self.nbytes = self.orbit.nbytes + self.inputs.nbytes + _bytes_of(self.truth_rgba)
    self.seconds = time.monotonic() - started

  def fetch(self) -> SceneRenders:
    """Waits for the device and copies everything to the host; a second call does nothing."""
    if hasattr(self, "orbit_rgba"):
      return self
    started = time.monotonic()
    self.orbit_rgba, self.orbit_maps = self.orbit.fetch()
    self.input_maps = _observed(self.inputs.fetch(), self.scene)
    self.reference = jax.device_get(self.reference)
    maps = (*self.orbit_maps.values(), *self.input_maps.values())
    self.nbytes = _bytes_of([self.orbit_rgba, *maps, *self.truth_rgba])
    self.seconds += time.monotonic() - started
    return self


def _bytes_of(arrays: Sequence[np.ndarray]) -> int:
  return sum(array.nbytes for array in arrays)


def scene_bytes(scene: Scene) -> int:
  """Returns the host memory of a scene's views, bytes."""
  return int(np.asarray(scene.images).nbytes + np.asarray(scene.alphas).nbytes)


def compile_outputs(
  compiler: BackgroundCompiler, scene: Scene, gaussians: Gaussians, settings: Settings
) -> None:
  """Compiles in the background the programs that `SceneRenders` runs for a scene and its fit.

  Args:
    compiler: compiles them.
    scene: its views in the canonical frame.
    gaussians: (N,) of the fit; their number and type count.
    settings: of the run.
  """
  rigs = {(c.width, c.height): c for c in (without_padding(scene).cameras, _orbit(settings))}
  for cameras in rigs.values():
    compile_renders(compiler, gaussians, cameras)
  if settings.report.quality:
    compile_hull_reference(compiler, scene, _orbit(settings))


def _quality(renders: SceneRenders, settings: Settings) -> dict[str, float]:
  if not settings.report.quality:
    return {}
  maps = renders.input_maps
  inputs = {"alpha": _alpha(maps), "depth": maps["depth"]}
  orbit = _orbit(settings)
  return quality_scores(renders.scene, inputs, renders.orbit_maps, orbit, renders.reference)


def _orbit(settings: Settings) -> Cameras:
  return generate_camera_poses(**dataclasses.asdict(settings.render))


def write_outputs(
  workdir: Workdir,
  settings: Settings,
  saved: SavedFit,
  recording: str,
  renders: SceneRenders,
) -> scene_records.SceneRecord:
  """Writes a fit into the dataset, scores it and draws its pictures; uses no device.

  Args:
    workdir: folder of the run.
    settings: of the run.
    saved: the fit.
    recording: the recording that its scene belongs to.
    renders: of the fit, fetched.

  Returns:
    the scene's line for the manifest, which the caller writes.

  Raises:
    OSError: the disk is full or not writable.
  """
  started = time.monotonic()
  hashes = writer.write_scene(
    workdir.dataset,
    saved.name,
    renders.orbit_rgba,
    _orbit(settings),
    extra={"source": str(saved.source), "input_to_canonical": saved.similarity.to_json()},
    png_level=settings.dataset.png_level,
    overwrite=True,
  )
  scores = _score(renders, settings)
  _draw_pictures(workdir, settings, saved, renders, scores)
  output = renders.seconds + time.monotonic() - started
  seconds = {**saved.info.get("seconds", {}), "output": output}
  return scene_records.SceneRecord(
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
      "bytes": _folder_bytes(workdir.dataset / saved.name),
      "warnings": list(saved.info.get("warnings", ())),
      "agreement": _without_poses(saved.info.get("agreement")),
    },
  )


def _without_poses(agreement: dict[str, Any] | None) -> dict[str, Any] | None:
  return agreement and {k: v for k, v in agreement.items() if k != "world_to_camera"}


def _score(renders: SceneRenders, settings: Settings) -> dict[str, float]:
  """Returns the metrics of a fit at its photographs and, if there are any, at held-out views."""
  scores = score_inputs(renders.input_maps, renders.scene) | _quality(renders, settings)
  if renders.truth is not None:
    novel = score_truth(renders.truth, renders.truth_rgba)[0]
    scores |= {f"novel_{name}": value for name, value in novel.items()}
  return scores


def _draw_pictures(
  workdir: Workdir,
  settings: Settings,
  saved: SavedFit,
  renders: SceneRenders,
  scores: Mapping[str, float],
) -> None:
  """Draws the contact sheet and the turntable, as far as the settings ask for them."""
  scene, rgba = renders.scene, renders.orbit_rgba
  if settings.report.contact_sheets:
    notes = f"{len(saved.gaussians.means):,} Gaussians ({model_name(saved.gaussians)})"
    rows = scene_pictures.make_sheet_rows(
      own_rgba(scene), without_padding(scene).cameras, renders.input_maps, rgba
    )
    scene_pictures.write_scene_pictures(workdir.report, saved.name, rows, notes, scores)
  if settings.report.turntable:
    turntable.write_turntable(workdir.report, saved.name, rgba)


def _folder_bytes(folder: pathlib.Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _observed(maps: dict[str, np.ndarray], scene: Scene) -> dict[str, np.ndarray]:
  """Returns `INPUT_MAPS` with colours only inside the frames of the photographs."""
  outside = ~observed_pixels(without_padding(scene))
  return {**maps, "rgba": np.where(outside[..., None], np.uint8(0), maps["rgba"])}


def _alpha(maps: Mapping[str, np.ndarray]) -> np.ndarray:
  return maps["rgba"][..., 3] / np.float32(255)


def own_rgba(scene: Scene) -> np.ndarray:
  """Returns the photographs as straight RGBA (V, H, W, 4) in [0, 1]."""
  scene = without_padding(scene)
  return as_unit_floats(np.concatenate([scene.images, scene.alphas[..., None]], -1))


def score_inputs(maps: Mapping[str, np.ndarray], scene: Scene) -> dict[str, float]:
  """Returns `input_*` metrics: the fit against the photographs that it was made from.

  Args:
    maps: `INPUT_MAPS` (V, H, W, ...) of the fit.
    scene: the photographs in the canonical frame.
  """
  rendered = maps["rgba"] / np.float32(255)
  rows = [metrics.compare_view(a, b) for a, b in zip(rendered, own_rgba(scene), strict=True)]
  return {f"input_{name}": value for name, value in metrics.average(rows).items()}


def render_held_out(saved: SavedFit, truth: Truth) -> list[np.ndarray]:
  """Renders a fit at the cameras of held-out views; returns one uint8 (H, W, 4) per view."""
  groups = canonical_groups(truth.groups, saved.similarity)
  return render_groups(saved.gaussians, groups, saved.filter_width)


def canonical_groups(groups: Sequence[ViewGroup], similarity: Similarity) -> list[ViewGroup]:
  """Moves cameras from the input frame into the canonical frame.

  Args:
    groups: view indices and cameras of each image size.
    similarity: input frame -> canonical frame.

  Returns:
    the same groups; the poses are float32.
  """
  moved = []
  for index, cameras in groups:
    poses = similarity.world_to_camera(cameras.world_to_camera).astype(np.float32)
    moved.append((index, dataclasses.replace(cameras, world_to_camera=poses)))
  return moved


def score_truth(
  truth: Truth, rendered: Sequence[np.ndarray]
) -> tuple[dict[str, float], list[dict[str, float]]]:
  """Scores renders of held-out views.

  Args:
    truth: the views.
    rendered: uint8 RGBA (H, W, 4) of each.

  Returns:
    mean metrics of the views that are not inputs too, and the metrics of every view.
  """
  rows = [
    metrics.compare_view(a / np.float32(255), b) for a, b in zip(rendered, truth.rgba, strict=True)
  ]
  novel = [row for row, seen in zip(rows, truth.seen, strict=True) if not seen]
  return metrics.average(novel), rows
