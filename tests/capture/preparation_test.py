"""From a raw capture to scenes: right geometry, nothing lost, one bad frame stops no other."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxsplat_mouse import metrics
from jaxsplat_mouse.capture import preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.dataset import camera_file, facelift
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha
from tests.capture.recording_fixtures import SPHERES, VIEWS, make_rig, walk, write_images

pytest.importorskip("cv2")
NAMES = ["walk_0001", "walk_0011", "walk_0021"]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Three moments, five cameras with lenses."""
  return write_images(tmp_path_factory.mktemp("raw") / "walk", make_rig())


@pytest.fixture
def own(capture: Capture, tmp_path: pathlib.Path) -> Capture:
  """A copy of the capture whose files a test may change."""
  folder = tmp_path / "walk"
  shutil.copytree(capture.path, folder)
  move = lambda stream: Stream(
    images=tuple(folder / p.relative_to(capture.path) for p in stream.images)
  )
  assert capture.masks is not None
  return dataclasses.replace(
    capture,
    path=folder,
    pictures=tuple(map(move, capture.pictures)),
    masks=tuple(map(move, capture.masks)),
  )


def settings(capture: Capture, output: pathlib.Path, **more: object) -> PrepareOptions:
  return PrepareOptions(format="dannce", input=capture.path, output=output, **more)  # type: ignore[arg-type]


def prepare(capture: Capture, output: pathlib.Path, **more: object) -> tuple[int, str]:
  """Status and what was printed."""
  console = Console(record=True, width=400, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
  status = preparation.prepare_recording(settings(capture, output, **more), capture, console)
  return status, console.export_text()


def written(output: pathlib.Path) -> list[str]:
  return sorted(p.parent.name for p in output.glob("*/opencv_cameras.json"))


def recording(output: pathlib.Path) -> dict:
  return json.loads((output / "recording.json").read_text())


@pytest.fixture(scope="module")
def prepared(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  output = tmp_path_factory.mktemp("scenes")
  assert prepare(capture, output)[0] == 0
  return output


def test_scenes_are_whole_and_in_the_world_of_the_capture(
  capture: Capture, prepared: pathlib.Path
) -> None:
  assert written(prepared) == NAMES
  for frame, name in enumerate(NAMES):
    read = facelift.read_scene(prepared / name)
    assert read.warnings == () and len(read.names) == VIEWS
    np.testing.assert_array_equal(read.cameras.world_to_camera, capture.rig.world_to_camera)
    hull = build_hull(read.scene, HullConfig(resolution=64, num_points=64, repair=False))
    alphas = np.asarray(hull_alpha(hull, read.scene.cameras))
    scores = [metrics.iou(a, b) for a, b in zip(alphas, read.scene.alphas, strict=True)]
    assert min(scores) > 0.95
    # the largest sphere's colour, nothing of the green behind it
    rgba = images.read_image(prepared / name / read.names[0])
    assert not rgba[rgba[..., 3] == 0].any()
    edge = (rgba[..., 3] > 30) & (rgba[..., 3] < 225)
    assert (rgba[edge][:, 1].astype(int) - rgba[edge].max(1) < 0).mean() > 0.95
    middle = np.asarray(SPHERES[0][0]) + walk(frame)
    assert np.linalg.norm(np.asarray(hull.centroid) - middle) < 9


def test_the_recording_file_has_trajectory_and_scale(prepared: pathlib.Path) -> None:
  value = recording(prepared)
  assert (value["unit"], value["up"], value["recording"]) == ("mm", "+z", "walk")
  moments = value["moments"]
  assert [m["status"] for m in moments] == ["done"] * 3
  steps = np.diff([m["centroid"] for m in moments], axis=0)
  np.testing.assert_allclose(steps, [[4, 3, 0]] * 2, atol=1.0)
  assert 30 < value["largest_radius"] < 45
  assert value["suggested_scale"] == pytest.approx(0.85 / value["largest_radius"])
  assert min(value["calibration"]["silhouette_iou"].values()) > 0.9
  assert (prepared / "check.png").is_file()
  page = (prepared / "check.html").read_text()
  assert "data:image/jpeg;base64," in page and "http" not in page


def test_one_size_at_native_resolution(capture: Capture, prepared: pathlib.Path) -> None:
  shapes, focals = set(), []
  for name in NAMES:
    cameras = camera_file.read_cameras(prepared / name)
    shapes |= {tuple(size) for size in cameras.sizes.tolist()}
    focals.append(cameras.intrinsics[:, 0])
  assert len(shapes) == 1 and len(set(shapes.pop())) == 1
  raw = capture.rig.matrices[:, [0, 1], [0, 1]].max(1)
  assert (np.array(focals) >= raw * 0.999).all() and (np.array(focals) < raw * 1.03).all()


def test_reduced_crops_keep_their_cameras_right(capture: Capture, tmp_path: pathlib.Path) -> None:
  assert prepare(capture, tmp_path, size=48, frames="1")[0] == 0
  read = facelift.read_scene(tmp_path / NAMES[1])
  assert read.scene.alphas.shape[1:] == (48, 48)
  hull = build_hull(read.scene, HullConfig(resolution=64, num_points=64, repair=False))
  alphas = np.asarray(hull_alpha(hull, read.scene.cameras))
  scores = [metrics.iou(a, b) for a, b in zip(alphas, read.scene.alphas, strict=True)]
  assert min(scores) > 0.93


def test_the_same_command_goes_on(capture: Capture, tmp_path: pathlib.Path) -> None:
  assert prepare(capture, tmp_path, frames="0:2")[0] == 0
  before = (tmp_path / NAMES[0] / "opencv_cameras.json").stat().st_mtime_ns
  shutil.rmtree(tmp_path / NAMES[1])
  status, printed = prepare(capture, tmp_path)
  assert status == 0 and "3 of 3 scenes" in printed and "1 were there" in printed
  assert written(tmp_path) == NAMES
  assert (tmp_path / NAMES[0] / "opencv_cameras.json").stat().st_mtime_ns == before
  assert [m["index"] for m in recording(tmp_path)["moments"]] == [0, 1, 2]
  with pytest.raises(InputError, match=r"settings.margin: 0.1 in an earlier run, 0.3 now"):
    prepare(capture, tmp_path, margin=0.3)
  assert prepare(capture, tmp_path, margin=0.3, redo=True, frames="0")[0] == 0
  # scenes of the other preparation are not taken for its own
  status, printed = prepare(capture, tmp_path, margin=0.3)
  assert status == 0 and "1 were there" in printed


def test_one_bad_frame_stops_no_other(own: Capture, tmp_path: pathlib.Path) -> None:
  """A broken photograph costs its camera; too many of them cost the moment alone."""
  for view in (0, 1):
    own.pictures[view].images[1].write_bytes(b"broken")
  own.pictures[2].images[2].unlink()
  status, printed = prepare(own, tmp_path / "out")
  assert status == 3 and written(tmp_path / "out") == [NAMES[0], NAMES[2]]
  assert "failed: walk_0011: 3 usable cameras" in printed
  assert "Camera3: not in 1 moments, first:" in printed and "no such image" in printed
  moments = recording(tmp_path / "out")["moments"]
  assert [(m["status"], m["views"]) for m in moments] == [("done", 5), ("failed", 3), ("done", 4)]
  assert len(facelift.read_scene(tmp_path / "out" / NAMES[2]).names) == 4


def test_a_camera_without_pictures_is_left_out(own: Capture, tmp_path: pathlib.Path) -> None:
  streams = (Stream(video=tmp_path / "none.mp4"), *own.pictures[1:])
  status, printed = prepare(
    dataclasses.replace(own, pictures=streams), tmp_path / "out", frames="0"
  )
  assert status == 0 and "left out: " in printed and "Camera1: no such video" in printed
  streams = (*streams[:1] * 2, *own.pictures[2:])
  with pytest.raises(InputError, match="cameras: 3 cameras can be used; expected 4"):
    prepare(dataclasses.replace(own, pictures=streams), tmp_path / "out", frames="0")


def test_a_mask_of_everything_is_one_bad_frame(own: Capture, tmp_path: pathlib.Path) -> None:
  assert own.masks is not None
  full = np.full((120, 144), 255, np.uint8)
  own.masks[0].images[1].write_bytes(images.encode_png(full))
  status, printed = prepare(own, tmp_path / "out")
  window = recording(tmp_path / "out")["window"]["side"]
  assert status == 0 and "Camera1: not in 1 moments" in printed, printed
  assert window <= 96


def test_nothing_to_do_anything_with(own: Capture, tmp_path: pathlib.Path) -> None:
  assert own.masks is not None
  for stream in own.masks:
    for path in stream.images:
      path.write_bytes(images.encode_png(np.zeros((120, 144), np.uint8)))
  with pytest.raises(InputError, match="masks"):
    prepare(own, tmp_path / "out")
  small = images.encode_png(np.zeros((10, 10, 3), np.uint8))
  own.pictures[0].images[0].write_bytes(small)


def test_check_writes_the_sheet_alone(capture: Capture, tmp_path: pathlib.Path) -> None:
  assert preparation.check_recording(settings(capture, tmp_path), capture, Console(quiet=True)) == 0
  assert sorted(p.name for p in tmp_path.iterdir()) == ["check.html", "check.png"]


def rewrite_masks(capture: Capture, change: Callable[[np.ndarray], np.ndarray]) -> None:
  """Every mask of a capture through a function of its levels (H, W) uint8."""
  for stream in capture.masks or ():
    for path in stream.images:
      path.write_bytes(images.encode_png(change(images.read_image(path, grey_too=True))))


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    (
      lambda levels: 255 - levels,
      "covers the picture's border; expected the animal white on black",
    ),
    (lambda levels: levels // 8, "the brightest level is 31; expected an animal at 128 to 255"),
  ],
)
def test_masks_of_another_meaning_are_refused_with_the_file(
  own: Capture, tmp_path: pathlib.Path, change: Callable[[np.ndarray], np.ndarray], problem: str
) -> None:
  """Inverted masks have a common solid too, the whole room, so silhouettes alone do not show it."""
  rewrite_masks(own, change)
  assert own.masks is not None
  with pytest.raises(InputError, match=problem) as caught:
    prepare(own, tmp_path / "out")
  assert str(own.masks[0].images[0]) in str(caught.value) and "Camera1 mask" in str(caught.value)


def test_masks_with_holes_bites_and_wide_outlines_pass(
  own: Capture, tmp_path: pathlib.Path
) -> None:
  """What segmentation programs leave behind: no reason to refuse a right calibration."""
  import cv2

  draw = np.random.default_rng(1)

  def spoil(levels: np.ndarray) -> np.ndarray:
    levels = np.asarray(cv2.dilate(levels, np.ones((3, 3), np.uint8)))
    rows, columns = np.nonzero(levels > 127)
    for _ in range(2):
      i = draw.integers(len(rows))
      cv2.circle(levels, (int(columns[i]), int(rows[i])), 3, 0, -1)
    levels[int(np.quantile(rows, 0.95)) :] = 0  # a shadow taken from below
    return levels

  rewrite_masks(own, spoil)
  status, printed = prepare(own, tmp_path / "out")
  assert status == 0 and "warning" not in printed
  assert written(tmp_path / "out") == NAMES


def test_larger_islands_are_dropped_on_request(own: Capture, tmp_path: pathlib.Path) -> None:
  def spoil(levels: np.ndarray) -> np.ndarray:
    levels = levels.copy()
    levels[2:8, 2:8] = 255
    return levels

  rewrite_masks(own, spoil)
  sides = []
  for name, specks in (("all", 0.002), ("animal", 0.1)):
    assert prepare(own, tmp_path / name, frames="0", specks=specks)[0] == 0
    sides.append(recording(tmp_path / name)["window"]["side"])
  assert sides[0] > 100 and sides[1] == 64  # as without the island


def test_wide_masks_are_narrowed_on_request(own: Capture, tmp_path: pathlib.Path) -> None:
  import cv2

  def alphas(name: str, **options) -> np.ndarray:
    assert prepare(own, tmp_path / name, frames="0", **options)[0] == 0
    files = sorted((tmp_path / name / NAMES[0] / "images").glob("*.png"))
    assert len(files) == 5
    return np.stack([np.asarray(Image.open(file))[..., 3] for file in files]) / 255.0

  exact = alphas("exact")
  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
  rewrite_masks(own, lambda levels: np.asarray(cv2.dilate(levels, disc)))
  wide, narrowed = alphas("wide"), alphas("narrowed", grow=-2)
  area = lambda a: (a > 0.5).sum()
  assert area(wide) > 1.05 * area(exact)
  assert abs(area(narrowed) / area(exact) - 1) < 0.02
  with pytest.raises(InputError, match=r"settings.grow: 0 in an earlier run, -2 now"):
    prepare(own, tmp_path / "wide", grow=-2)


@pytest.mark.parametrize("masked", [True, False])
def test_narrowing_that_leaves_nothing_is_reported(
  own: Capture, tmp_path: pathlib.Path, masked: bool
) -> None:
  if not masked:
    for photos, masks in zip(own.pictures, own.masks or (), strict=True):
      for photo, mask in zip(photos.images, masks.images, strict=True):
        levels = images.read_image(mask, grey_too=True)
        photo.write_bytes(images.encode_png(np.dstack([images.read_image(photo), levels])))
    own = dataclasses.replace(own, masks=None)
  with pytest.raises(InputError, match=r"frame 0: --grow=-32 leaves nothing of the silhouette"):
    prepare(own, tmp_path / "out", frames="0", grow=-32)


def test_pictures_with_alpha_of_their_own_do_not_grow(own: Capture, tmp_path: pathlib.Path) -> None:
  bare = dataclasses.replace(own, masks=None)
  with pytest.raises(InputError, match=r"--grow: 2: .*expected 0 or less without masks"):
    prepare(bare, tmp_path / "out", grow=2)


def test_a_camera_is_left_out_on_request(own: Capture, tmp_path: pathlib.Path) -> None:
  status, printed = prepare(own, tmp_path / "out", frames="0", without=("Camera2",))
  assert status == 0 and "left out: Camera2: named by --without" in printed
  scene = json.loads((tmp_path / "out" / NAMES[0] / "opencv_cameras.json").read_text())
  cameras = [frame["camera"] for frame in scene["frames"]]
  assert cameras == ["Camera1", "Camera3", "Camera4", "Camera5"]
  with pytest.raises(InputError, match="--without: Camera22: no such camera; did you mean Camera2"):
    prepare(own, tmp_path / "other", without=("Camera22",))


@pytest.mark.parametrize(("module", "package"), [("av", "PyAV"), ("cv2", "OpenCV")])
def test_a_missing_package_is_reported_once(
  capture: Capture, tmp_path: pathlib.Path, monkeypatch, module: str, package: str
) -> None:
  monkeypatch.setitem(sys.modules, module, None)
  streams = tuple(Stream(video=tmp_path / f"{name}.mp4") for name in capture.rig.names)
  with pytest.raises(InputError, match=rf"takes {package}: pip install 'jaxsplat-mouse\[video\]'"):
    prepare(dataclasses.replace(capture, pictures=streams), tmp_path / "out")


def test_scenes_go_into_a_folder_of_their_own(own: Capture, tmp_path: pathlib.Path) -> None:
  before = sorted(own.path.iterdir())
  with pytest.raises(InputError, match="--output: is the recording itself"):
    prepare(own, own.path)
  file = tmp_path / "file"
  file.touch()
  with pytest.raises(InputError, match="--output: is a file; expected a folder"):
    prepare(own, file)
  assert sorted(own.path.iterdir()) == before


def test_a_recording_of_an_earlier_version_goes_on(own: Capture, tmp_path: pathlib.Path) -> None:
  """Its settings lack newer options, which had their default values then."""
  assert prepare(own, tmp_path / "out", frames="0")[0] == 0
  value = recording(tmp_path / "out")
  del value["settings"]["specks"], value["settings"]["grow"], value["settings"]["without"]
  (tmp_path / "out" / "recording.json").write_text(json.dumps(value))
  assert prepare(own, tmp_path / "out", frames="0:2")[0] == 0
  with pytest.raises(InputError, match=r"settings.specks: 0.002 in an earlier run, 0.01 now"):
    prepare(own, tmp_path / "out", specks=0.01)
