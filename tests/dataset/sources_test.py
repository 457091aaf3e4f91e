"""Sources: what a path stands for, names, recordings, digests, held-out truth."""

from __future__ import annotations

import pathlib
import shutil
import time

import numpy as np
import pytest

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.dataset import camera_file, sources
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images


def write_views(folder: pathlib.Path, cameras: Cameras, value: int = 100) -> pathlib.Path:
  """A scene folder of a square animal, the same from every side."""
  (folder / "images").mkdir(parents=True)
  size = cameras.width
  rgba = np.zeros((size, size, 4), np.uint8)
  rgba[size // 4 : -size // 4, size // 4 : -size // 4] = [value, 50, 20, 255]
  names = [f"images/cam_{i:03d}.png" for i in range(len(cameras))]
  for name in names:
    (folder / name).write_bytes(images.encode_png(rgba))
  camera_file.write_scene_cameras(folder, cameras, names)
  return folder


def ring(num_views: int = 4, size: int = 16) -> Cameras:
  return generate_camera_poses(num_views, image_size=size)


def names(path: pathlib.Path | str) -> list[str]:
  return [source.name for source in sources.find_sources(path)]


def test_nothing_is_the_built_in_mouse() -> None:
  found = sources.find_sources("", mice=2, mouse_image_size=32)
  assert [s.name for s in found] == ["mouse_0000", "mouse_0001"]
  assert len({s.recording for s in found}) == 2
  scene, warnings = sources.read_source(found[1])
  assert scene.alphas.shape == (6, 32, 32) and not warnings
  assert sources.digest(found[0]) != sources.digest(found[1])


def test_a_scene_folder_and_one_with_input_and_target(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "cow", ring())
  write_views(tmp_path / "spot" / "input", ring())
  write_views(tmp_path / "spot" / "target", ring(5))
  assert names(tmp_path / "cow") == ["cow"]
  assert names(tmp_path / "spot") == names(tmp_path / "spot" / "input") == ["spot"]
  (found,) = sources.find_sources(tmp_path / "spot")
  assert found.folder == tmp_path / "spot" / "input"
  assert sources.Source.from_json(found.to_json()) == found


def test_a_folder_of_scenes_in_the_order_of_names(tmp_path: pathlib.Path) -> None:
  for name in ("b", "a"):
    write_views(tmp_path / "rec" / name, ring())
  write_views(tmp_path / "rec" / "c" / "input", ring())
  (tmp_path / "rec" / "notes").mkdir()
  found = sources.find_sources(tmp_path / "rec")
  assert [s.name for s in found] == ["a", "b", "c"]
  assert {s.recording for s in found} == {"rec"}


def test_a_folder_of_recordings_keeps_names_apart(tmp_path: pathlib.Path) -> None:
  for recording in ("day1", "day2"):
    write_views(tmp_path / recording / "frame_0", ring())
  found = sources.find_sources(tmp_path)
  assert [s.name for s in found] == ["frame_0", "day2_frame_0"]
  assert [s.recording for s in found] == ["day1", "day2"]


def test_a_scene_without_its_camera_file_is_seen_and_told(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "a", ring())
  write_views(tmp_path / "b", ring())
  (tmp_path / "b" / camera_file.CAMERAS_FILE).unlink()
  found = sources.find_sources(tmp_path)
  assert [s.name for s in found] == ["a", "b"]
  with pytest.raises(InputError, match=r"b/opencv_cameras\.json"):
    sources.read_source(found[1])


def test_thousands_of_scenes_are_found_at_once(tmp_path: pathlib.Path) -> None:
  for i in range(2000):
    (tmp_path / f"scene_{i:04d}" / "images").mkdir(parents=True)
  started = time.monotonic()
  found = sources.find_sources(tmp_path)
  assert time.monotonic() - started < 20  # milliseconds each would be too many already
  assert [s.name for s in found] == [f"scene_{i:04d}" for i in range(2000)]


def test_a_list_file_and_a_scene_listed_twice(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  write_views(tmp_path / "x y", ring())
  write_views(tmp_path / "b" / "input", ring())
  (tmp_path / "list.txt").write_text("x y\nb\nb/input\n./x y\n")
  assert names(tmp_path / "list.txt") == ["x_y", "b"]
  assert caplog.text.count("listed twice") == 2


def test_nothing_there_is_one_clear_line(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match="no such file or folder"):
    sources.find_sources(tmp_path / "no")
  with pytest.raises(InputError, match="no scene in it"):
    sources.find_sources(tmp_path)


def test_digest_follows_the_content_not_the_time(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "a", ring())
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  a, b = (sources.Source(name=n, recording="", folder=tmp_path / n) for n in "ab")
  write_views(tmp_path / "c", ring(), value=101)
  c = sources.Source(name="c", recording="", folder=tmp_path / "c")
  shutil.copy(tmp_path / "a" / camera_file.CAMERAS_FILE, tmp_path / "c" / camera_file.CAMERAS_FILE)
  assert sources.digest(a) == sources.digest(b) != sources.digest(c)


def test_truth_beside_the_input(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "s" / "input", ring(4))
  write_views(tmp_path / "s" / "target", ring(8, size=20))
  (source,) = sources.find_sources(tmp_path / "s")
  scene, _ = sources.read_source(source)
  truth = sources.read_truth(source, scene)
  assert truth is not None
  assert len(truth.rgba) == 8 and truth.rgba[0].shape == (20, 20, 4)
  assert truth.seen.tolist() == [True, False] * 4  # every other one is an input camera


def test_no_truth_is_none_and_a_given_folder_is_used(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "s", ring(4))
  write_views(tmp_path / "t", ring(2))
  (source,) = sources.find_sources(tmp_path / "s")
  scene, _ = sources.read_source(source)
  assert sources.read_truth(source, scene) is None
  truth = sources.read_truth(source, scene, folder=tmp_path / "t")
  assert truth is not None and len(truth.rgba) == 2


def test_truth_of_a_mouse_is_held_out() -> None:
  (source,) = sources.find_sources("", mouse_image_size=24)
  scene, _ = sources.read_source(source)
  truth = sources.read_truth(source, scene, num_views=4)
  assert truth is not None and not truth.seen.any()
  assert all((view[..., 3] > 0.5).any() for view in truth.rgba)


def test_a_truth_of_the_wrong_size_is_told(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "s", ring(4))
  write_views(tmp_path / "t", ring(2))
  rgba = np.zeros((8, 8, 4), np.uint8)
  (tmp_path / "t" / "images" / "cam_001.png").write_bytes(images.encode_png(rgba))
  (source,) = sources.find_sources(tmp_path / "s")
  scene, _ = sources.read_source(source)
  with pytest.raises(InputError, match=r"frames\[1\].*8 x 8 pixels; expected 16 x 16"):
    sources.read_truth(source, scene, folder=tmp_path / "t")


def test_load_scene_is_canonical_and_tells_what_is_no_solid(tmp_path: pathlib.Path) -> None:
  write_views(tmp_path / "s" / "input", ring(4, size=32))
  scene = sources.load_scene(tmp_path / "s")
  kept = sources.load_scene(tmp_path / "s", normalize="none")
  distance = lambda s: float(np.linalg.norm(s.cameras.centers, axis=-1).mean())
  assert distance(kept) == pytest.approx(2.7, rel=1e-5)
  assert distance(scene) != pytest.approx(2.7, rel=1e-2)
  away = ring(4, size=32)
  moved = np.array(away.world_to_camera)
  moved[1:, 0, 3] += 5.0  # three cameras look past what the first one sees
  cameras = Cameras(world_to_camera=moved, intrinsics=away.intrinsics, width=32, height=32)
  write_views(tmp_path / "t", cameras)
  with pytest.raises(InputError, match=r"t: (silhouettes|cameras): "):
    sources.load_scene(tmp_path / "t")
