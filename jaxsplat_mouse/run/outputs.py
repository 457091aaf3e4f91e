"""What a finished fit becomes: a scene of the dataset, metrics, a picture."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence

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
from jaxsplat_mouse.scene import Scene, as_unit_floats, observed_pixels, without_padding

_TRUTH_VIEWS = 8  # of the built-in mice, whose truth is made while one waits


class SceneRenders:
  """All that is rendered of one fit: started on the device, later fetched, then written.

  Attributes:
    scene: the photographs in the canonical frame.
    orbit: the images of the dataset and maps of them.
    inputs: maps at the cameras of the photographs.
    hull: what `render_hull_reference` returned, where scores are wanted.
    truth: held-out views, where they are scored at once.
    truth_rgba: the fit at their cameras, uint8.
    seconds: wall time so far.
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
    self.hull = render_hull_reference(scene, cameras) if settings.report.quality else None
    self.truth_rgba = render_held_out(saved, self.truth) if self.truth else []
    self.nbytes = self.orbit.nbytes + self.inputs.nbytes + _bytes_of(self.truth_rgba)
    self.seconds = time.monotonic() - started

  def fetch(self) -> SceneRenders:
    """Waits for the device and brings everything to the host; does nothing the second time."""
    if hasattr(self, "orbit_rgba"):
      return self
    started = time.monotonic()
    self.orbit_rgba, self.orbit_maps = self.orbit.fetch()
    self.input_maps = _observed(self.inputs.fetch(), self.scene)
    self.hull = jax.device_get(self.hull)
    maps = (*self.orbit_maps.values(), *self.input_maps.values())
    self.nbytes = _bytes_of([self.orbit_rgba, *maps, *self.truth_rgba])
    self.seconds += time.monotonic() - started
    return self


def _bytes_of(arrays: Sequence[np.ndarray]) -> int:
  return sum(array.nbytes for array in arrays)


def scene_bytes(scene: Scene) -> int:
  """Host memory of a scene's views."""
  return int(np.asarray(scene.images).nbytes + np.asarray(scene.alphas).nbytes)


def compile_outputs(
  compiler: BackgroundCompiler, scene: Scene, gaussians: Gaussians, settings: Settings
) -> None:
  """Compiles in the background the programs that `SceneRenders` runs for a scene and its fit.

  Args:
    compiler: compiles them.
    scene: its views in the canonical frame.
    gaussians: (N,) of which most will be rendered.
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
  return quality_scores(renders.scene, inputs, renders.orbit_maps, _orbit(settings), renders.hull)


def _orbit(settings: Settings) -> Cameras:
  return generate_camera_poses(**dataclasses.asdict(settings.render))


def write_outputs(
  workdir: Workdir,
  settings: Settings,
  saved: SavedFit,
  recording: str,
  renders: SceneRenders,
) -> scene_records.SceneRecord:
  """Writes a fit into the dataset, scores it and draws its contact sheet; takes no device.

  Args:
    workdir: where to.
    settings: of the run.
    saved: the fit.
    recording: that it belongs to.
    renders: of the fit, fetched.

  Returns:
    the scene's line for the manifest, which is not written here.

  Raises:
    OSError: the disk is full or not writable.
  """
  started = time.monotonic()
  scene, rgba = renders.scene, renders.orbit_rgba
  hashes = writer.write_scene(
    workdir.dataset,
    saved.name,
    rgba,
    _orbit(settings),
    extra={"source": str(saved.source), "input_to_canonical": saved.similarity.to_json()},
    png_level=settings.dataset.png_level,
    overwrite=True,
  )
  scores = score_inputs(renders.input_maps, scene) | _quality(renders, settings)
  if renders.truth is not None:
    novel = score_truth(renders.truth, renders.truth_rgba)[0]
    scores |= {f"novel_{name}": value for name, value in novel.items()}
  if settings.report.contact_sheets:
    notes = f"{len(saved.gaussians.means):,} Gaussians ({model_name(saved.gaussians)})"
    rows = scene_pictures.make_sheet_rows(
      own_rgba(scene), without_padding(scene).cameras, renders.input_maps, rgba
    )
    scene_pictures.write_scene_pictures(workdir.report, saved.name, rows, notes, scores)
  if settings.report.turntable:
    turntable.write_turntable(workdir.report, saved.name, rgba)
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
    },
  )


def _folder_bytes(folder: pathlib.Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _observed(maps: dict[str, np.ndarray], scene: Scene) -> dict[str, np.ndarray]:
  """`INPUT_MAPS`, empty outside what the photographs saw."""
  outside = ~observed_pixels(without_padding(scene))
  return {**maps, "rgba": np.where(outside[..., None], np.uint8(0), maps["rgba"])}


def _alpha(maps: Mapping[str, np.ndarray]) -> np.ndarray:
  return maps["rgba"][..., 3] / np.float32(255)


def own_rgba(scene: Scene) -> np.ndarray:
  """Returns the photographs as straight RGBA (V, H, W, 4) in [0, 1]."""
  scene = without_padding(scene)
  return as_unit_floats(np.concatenate([scene.images, scene.alphas[..., None]], -1))


def score_inputs(maps: Mapping[str, np.ndarray], scene: Scene) -> dict[str, float]:
  """`input_*` metrics: how well a fit shows the photographs it was made from."""
  rendered = maps["rgba"] / np.float32(255)
  rows = [metrics.compare_view(a, b) for a, b in zip(rendered, own_rgba(scene), strict=True)]
  return {f"input_{name}": value for name, value in metrics.average(rows).items()}


def render_held_out(saved: SavedFit, truth: Truth) -> list[np.ndarray]:
  """A fit at the cameras of held-out views, uint8 RGBA."""
  groups = []
  for index, cameras in truth.groups:
    moved = saved.similarity.world_to_camera(cameras.world_to_camera).astype(np.float32)
    groups.append((index, dataclasses.replace(cameras, world_to_camera=moved)))
  return render_groups(saved.gaussians, groups, saved.filter_width)


def score_truth(
  truth: Truth, rendered: Sequence[np.ndarray]
) -> tuple[dict[str, float], list[dict[str, float]]]:
  """Mean metrics of the views that are no input's, and metrics by view."""
  rows = [
    metrics.compare_view(a / np.float32(255), b) for a, b in zip(rendered, truth.rgba, strict=True)
  ]
  novel = [row for row, seen in zip(rows, truth.seen, strict=True) if not seen]
  return metrics.average(novel), rows
