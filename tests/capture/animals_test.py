"""Several animals: each pixel is one animal's, hidden for the others, and each gets its scenes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxsplat_mouse import metrics
from jaxsplat_mouse.capture import animal_masks, mask_files, preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from jaxsplat_mouse.validation import rules, scene_checks
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig
from tests.capture.recording_fixtures import (
  SPHERES,
  VIEWS,
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


def relabelled(
  capture: Capture, folder: pathlib.Path, camera: int, ids: dict[int, int]
) -> pathlib.Path:
  """A folder of the capture's label masks, with other ids in one camera."""
  shutil.copytree(capture.path / "labels", folder)
  for path in sorted((folder / capture.rig.names[camera]).glob("*.png")):
    labels = np.asarray(Image.open(path))
    write_labels(path, np.vectorize(lambda x: ids.get(x, x))(labels))
  return folder


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
  for moment in moments:
    spheres = SPHERES if moment["animal"] == "1" else OTHER
    middle = np.average([s[0] for s in spheres], 0, [s[1] ** 3 for s in spheres])
    assert np.linalg.norm(moment["centroid"] - middle - walk(moment["index"])) < 4
    scene = facelift.read_scene(prepared / moment["scene"]).scene
    assert scene.hidden is not None and scene.hidden.any() and not scene.hidden.all((1, 2)).any()
    assert not scene.alphas[scene.hidden].any()


def test_as_background_the_other_animal_cuts_off_what_it_hides(prepared: pathlib.Path) -> None:
  scene = facelift.read_scene(prepared / "pair_0001_a1").scene
  config = HullConfig(resolution=64, num_points=64)
  hulls = [build_hull(one, config) for one in (dataclasses.replace(scene, hidden=None), scene)]
  cut, whole = (
    (np.asarray(hull.values) > 127).sum() * np.prod(np.asarray(hull.voxel_size)) for hull in hulls
  )
  assert cut < 0.9 * whole


def test_the_validator_knows_hidden_pixels(prepared: pathlib.Path, tmp_path: pathlib.Path) -> None:
  own = rules.Rules(views=VIEWS, orbit=False, hull_resolution=64, hull_iou=0.95)
  assert scene_checks.check_scene(prepared / "pair_0001_a1", own) == (VIEWS, [])
  # Without them the silhouettes seem to be of different solids.
  shutil.copytree(prepared / "pair_0001_a1", tmp_path / "scene")
  path = tmp_path / "scene" / "opencv_cameras.json"
  path.write_text(path.read_text().replace("observed_path", "elsewhere"))
  assert "not come from one solid" in scene_checks.check_scene(tmp_path / "scene", own)[1][0]
  path.write_text(path.read_text().replace('"elsewhere": "', '"observed_path": "../'))
  assert "leads out of the scene" in scene_checks.check_scene(tmp_path / "scene", own)[1][0]
  with pytest.raises(InputError, match="observed_path"):
    facelift.read_scene(tmp_path / "scene")


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


def test_exchanged_ids_are_named_and_exchanged_back(
  capture: Capture, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  labels = relabelled(capture, tmp_path / "labels", 3, {1: 2, 2: 1})
  status, text = prepare(capture, tmp_path / "out", masks=labels, animals=("1", "2"), frames="0")
  assert status == 0
  assert "warning: masks exchange animals in 1 moments, which were exchanged back" in text
  moments = recording(tmp_path / "out")["moments"]
  assert all(len(m["exchanged"]) == 1 for m in moments)
  assert moments[0]["exchanged"][0].startswith("Camera4: 1 and 2 (common solids ")
  for name in ("pair_0001_a1", "pair_0001_a2"):
    mended = facelift.read_scene(tmp_path / "out" / name).scene
    np.testing.assert_array_equal(mended.alphas, facelift.read_scene(prepared / name).scene.alphas)
  assert not any("exchanged" in m for m in recording(prepared)["moments"])


def test_an_animal_in_too_few_cameras_is_no_scene(capture: Capture, tmp_path: pathlib.Path) -> None:
  labels = relabelled(capture, tmp_path / "labels", 0, {2: 0})
  second = relabelled(
    dataclasses.replace(capture, path=tmp_path), tmp_path / "fewer" / "labels", 1, {2: 0}
  )
  status, _ = prepare(capture, tmp_path / "out", masks=second, animals=("1", "2"), frames="0")
  assert status == 3 and labels.is_dir()
  first, other = recording(tmp_path / "out")["moments"]
  assert (first["status"], first["views"]) == ("done", VIEWS)
  assert (other["status"], other["views"]) == ("failed", VIEWS - 2)
  assert other["problems"][0].endswith("Camera1 mask frame 0: animal 2: empty silhouette")
  assert "3 usable cameras" in other["problems"][-1]


def test_refusals(capture: Capture, tmp_path: pathlib.Path) -> None:
  output = tmp_path / "out"
  with pytest.raises(InputError, match="--animals: 3: no camera shows this animal in any moment"):
    prepare(capture, output, animals=("1", "3"), frames="0")
  with pytest.raises(InputError, match="--animals: red: neither a label id"):
    prepare(capture, output, animals=("red",))
  with pytest.raises(InputError, match="mouse7: no such masks; expected some of mouse1, mouse2"):
    prepare(capture, output, animals=("mouse7",), masks=capture.path / "single")
  with pytest.raises(InputError, match="has no masks; give --masks=DIR"):
    mask_files.with_masks(dataclasses.replace(capture, masks=None), None, ["1"])
  video = dataclasses.replace(capture, masks=(Stream(video=tmp_path / "a.mp4"),) * VIEWS)
  with pytest.raises(InputError, match=r"0 cameras can be used.* codec may change label ids"):
    prepare(video, output, animals=("1", "2"))
  with pytest.raises(InputError, match="RGB; expected label ids as an indexed or grey PNG"):
    images.read_label_image(capture.pictures[0].images[0])
  with pytest.raises(InputError, match="96 different values from 0 to 95; expected the integer"):
    animal_masks.check_labels(tmp_path, "", np.arange(96).reshape(8, 12))


def test_one_animal_of_two_is_prepared_alone(capture: Capture, tmp_path: pathlib.Path) -> None:
  assert prepare(capture, tmp_path, animals=("2",), frames="0")[0] == 0
  assert written(tmp_path) == ["pair_0001_a2"]
  assert facelift.read_scene(tmp_path / "pair_0001_a2").scene.hidden is not None
  with pytest.raises(InputError, match=r"settings.animals.*'2'.* in an earlier run"):
    prepare(capture, tmp_path, animals=("1",), frames="0")


def test_pixels_go_to_the_animal_that_shows() -> None:
  first, second = np.zeros((2, 60, 80), np.uint8)
  first[10:50, 5:45], second[10:50, 45:70] = 255, 255
  first[28:31, 20:45], second[28:31, 20:45] = 0, 255  # the tail of the second lies on the first
  second[12:14, 12:14] = 255  # and two of its pixels on the first are noise
  found = animal_masks.divide_picture(np.stack([first, second]), 1 / 500)
  assert found.present == {0, 1} and (found.coverage[10:50, 5:70] == 255).all()
  assert (found.owner[29, 20:70] == 1).all() and (found.owner[12:14, 12:14] != 1).all()
  assert found.owner[29, 0] == 0 and found.owner[55, 75] == 1  # outside, the nearest


def test_masks_by_camera_first(tmp_path: pathlib.Path) -> None:
  for camera in "ab":
    for animal in ("1", "10", "2"):
      (tmp_path / camera / animal).mkdir(parents=True)
      (tmp_path / camera / animal / "0.png").touch()
  rig = make_rig()
  capture = make_capture(tmp_path, dataclasses.replace(rig, names=("a", "b")), [], [], 1)
  found = mask_files.with_masks(capture, tmp_path).animals
  assert [animal.name for animal in found] == ["1", "2", "10"]
  assert found[1].masks is not None and found[1].masks[0].images[0] == tmp_path / "a/2/0.png"
  (tmp_path / "a" / "0.png").touch()  # masks of one animal, with folders beside them
  (tmp_path / "b" / "0.png").touch()
  assert mask_files.with_masks(capture, tmp_path).animals == ()
