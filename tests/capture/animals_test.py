"""Several animals: each pixel is one animal's, hidden for the others, and each gets its scenes."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxsplat_mouse import metrics
from jaxsplat_mouse.capture import mask_files, preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.io import images
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig
from tests.capture.recording_fixtures import (
  SPHERES,
  develop,
  make_capture,
  make_rig,
  trace,
  walk,
)

pytest.importorskip("cv2")
# Beside the first animal, which it touches and hides in some views.
OTHER = (((52.0, 14.0, 18.0), 17.0, (0.2, 0.3, 0.7)), ((50.0, -8.0, 26.0), 9.0, (0.7, 0.2, 0.3)))
MOMENTS = 2


def write_labels(path: pathlib.Path, labels: np.ndarray) -> None:
  """An indexed PNG, as segmentation programs write it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(labels.astype(np.uint8), "P")
  image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
  image.save(path)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Two animals; label masks in labels/CAMERA, masks of each in single/ANIMAL/CAMERA."""
  folder, rig = tmp_path_factory.mktemp("raw") / "pair", make_rig()
  pictures, masks = [], []
  for view, name in enumerate(rig.names):
    photos, labels = [], []
    for frame in range(MOMENTS):
      image, number = trace(rig, view, SPHERES + OTHER, walk(frame))
      photo, coverage = develop(image)
      middle = number[2::4, 2::4]
      ids = np.where(coverage >= 128, np.where(middle >= len(SPHERES), 2, 1), 0)
      photos.append(folder / "photo" / name / f"{frame}.png")
      labels.append(folder / "labels" / name / f"{frame}.png")
      photos[-1].parent.mkdir(parents=True, exist_ok=True)
      photos[-1].write_bytes(images.encode_png(photo))
      write_labels(labels[-1], ids)
      for animal in (1, 2):
        path = folder / "single" / f"mouse{animal}" / name / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(np.where(ids == animal, np.uint8(255), np.uint8(0))))
    pictures.append(Stream(images=tuple(photos)))
    masks.append(Stream(images=tuple(labels)))
  return make_capture(folder, rig, pictures, masks, MOMENTS)


def prepare(capture: Capture, output: pathlib.Path, **more: object) -> tuple[int, str]:
  """Status and what was printed."""
  options = PrepareOptions(format="dannce", input=capture.path, output=output, **more)  # type: ignore[arg-type]
  capture = mask_files.with_masks(capture, options.masks, options.animals)
  console = Console(record=True, width=400, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
  return preparation.prepare_recording(options, capture, console), console.export_text()


def written(output: pathlib.Path) -> list[str]:
  return sorted(p.parent.name for p in output.glob("*/opencv_cameras.json"))


def recording(output: pathlib.Path) -> dict:
  return json.loads((output / "recording.json").read_text())


@pytest.fixture(scope="module")
def prepared(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  output = tmp_path_factory.mktemp("scenes")
  assert prepare(capture, output, animals=("1", "2"))[0] == 0
  return output


def test_each_animal_gets_scenes(prepared: pathlib.Path) -> None:
  assert written(prepared) == ["pair_0001_a1", "pair_0001_a2", "pair_0011_a1", "pair_0011_a2"]
  moments = recording(prepared)["moments"]
  assert [(m["index"], m["animal"]) for m in moments] == [(0, "1"), (0, "2"), (1, "1"), (1, "2")]
  config = HullConfig(resolution=64, num_points=64)
  for frame, one, spheres in ((0, "1", SPHERES), (0, "2", OTHER), (1, "2", OTHER)):
    scene = facelift.read_scene(prepared / f"pair_{10 * frame + 1:04d}_a{one}").scene
    middle = np.average([s[0] for s in spheres], 0, [s[1] ** 3 for s in spheres]) + walk(frame)
    assert np.linalg.norm(np.asarray(build_hull(scene, config).centroid) - middle) < 4
    assert scene.hidden is not None and scene.hidden.any() and not scene.hidden.all((1, 2)).any()
    assert not scene.alphas[scene.hidden].any()
    # As background, the other animal's pixels cut off what it hides.
    shown = dataclasses.replace(scene, hidden=None)
    volume = lambda s: (
      (np.asarray(h.values) > 127).sum() * np.prod(np.asarray(h.voxel_size))
      if (h := build_hull(s, config))
      else 0
    )
    assert volume(shown) < 0.9 * volume(scene)


def test_masks_of_each_animal_give_the_same_scenes(
  capture: Capture, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  assert prepare(capture, tmp_path, masks=capture.path / "single", frames="0")[0] == 0
  assert written(tmp_path) == ["pair_0001_mouse1", "pair_0001_mouse2"]
  for animal in (1, 2):
    one = facelift.read_scene(tmp_path / f"pair_0001_mouse{animal}").scene
    other = facelift.read_scene(prepared / f"pair_0001_a{animal}").scene
    assert metrics.iou(one.alphas, other.alphas) > 0.999
    assert one.hidden is not None and (one.hidden == other.hidden).all()
