"""The writer of scenes: whole or not at all, with exact colours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse.dataset import lists, scene_records, training_yaml, writer
from jaxsplat_mouse.io import atomic, images
from tests.dataset import dataset_fixtures
from tests.dataset.dataset_fixtures import SIZE, VIEWS, record, small_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files_of(folder: pathlib.Path) -> list[str]:
  return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --------------------------------------------------------------------------------------- to_rgba8


def test_every_straight_colour_survives_at_every_alpha():
  alpha = np.repeat(np.arange(256), 256).reshape(1, 256, 256) / 255.0
  straight = np.tile(np.arange(256), 256).reshape(1, 256, 256, 1) / 255.0 * np.ones(3)
  rgba = writer.to_rgba8(straight * alpha[..., None], alpha)
  assert rgba.dtype == np.uint8
  np.testing.assert_array_equal(rgba[0, ..., 3], np.arange(256)[:, None] * np.ones(256))
  np.testing.assert_array_equal(rgba[0, 1:, :, 1], np.arange(256) * np.ones((255, 1)))
  assert not rgba[0, 0].any()


def test_rounding_is_to_the_nearest_level():
  alpha = np.array([[0.0019, 0.0020, 0.5, 1.0]])
  rgba = writer.to_rgba8(alpha[..., None] * [0.4999, 0.5, 0.9999], alpha)
  assert rgba[0, :, 3].tolist() == [0, 1, 128, 255]
  assert rgba[0, 0].tolist() == [0, 0, 0, 0]
  assert rgba[0, 1:, 0].tolist() == [127] * 3
  assert rgba[0, 1:, 2].tolist() == [255] * 3


def test_edges_keep_their_colour():
  """Dividing by the rounded alpha, or rounding the product first, would shift thin edges."""
  alpha = np.linspace(0.002, 1, 500)[None]
  rgba = writer.to_rgba8(alpha[..., None] * np.array([0.898, 0.35, 0.102]), alpha)
  assert np.unique(rgba[rgba[..., 3] > 0][:, :3], axis=0).tolist() == [[229, 89, 26]]


def test_values_out_of_range_are_clipped_and_any_leading_axes_kept():
  rgb = np.array([[[1.2, -0.1, 0.5]]]) * np.ones((2, 3, 1, 1, 1))
  rgba = writer.to_rgba8(rgb, np.full((2, 3, 1, 1), 1.1))
  assert rgba.shape == (2, 3, 1, 1, 4)
  assert rgba[1, 2, 0, 0].tolist() == [255, 0, 116, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_raise(bad):
  rgb, alpha = np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4))
  rgb[1, 2, 2, 0] = bad
  with pytest.raises(ValueError, match="not finite"):
    writer.to_rgba8(rgb, alpha)
  with pytest.raises(ValueError, match="not finite"):
    writer.to_rgba8(np.zeros_like(rgb), alpha + bad)
  with pytest.raises(ValueError, match="expected"):
    writer.to_rgba8(rgb, alpha[0])


# ------------------------------------------------------------------------------------ write_scene


def test_a_scene_is_written_as_facelift_reads_it(tmp_path: pathlib.Path):
  rgb, alpha = dataset_fixtures.renders()
  rgba, cameras = writer.to_rgba8(rgb, alpha), dataset_fixtures.cameras()
  hashes = writer.write_scene(
    tmp_path, "scene_0000", rgba, cameras, scene_id="m1", extra={"units": "canonical"}
  )
  folder = tmp_path / "scene_0000"
  data = json.loads((folder / "opencv_cameras.json").read_text())
  assert (data["id"], data["units"], len(data["frames"])) == ("m1", "canonical", VIEWS)
  for i, frame in enumerate(data["frames"]):
    assert frame["file_path"] == f"images/cam_{i:03d}.png"
    image = Image.open(folder / frame["file_path"])
    assert (image.mode, image.size) == ("RGBA", (SIZE, SIZE))
    np.testing.assert_array_equal(np.asarray(image), rgba[i])
    assert (frame["w"], frame["h"]) == (SIZE, SIZE)
    np.testing.assert_array_equal(frame["w2c"], cameras.world_to_camera[i])
    assert [frame[k] for k in ("fx", "fy", "cx", "cy")] == cameras.intrinsics[i].tolist()
  assert sorted(hashes) == files_of(folder)
  digest = hashlib.sha256((folder / "images/cam_003.png").read_bytes()).hexdigest()
  assert hashes["images/cam_003.png"] == digest
  assert hashes == writer.scene_hashes(folder)


def test_hidden_colour_is_dropped(tmp_path: pathlib.Path):
  rgba, cameras = small_scene()
  rgba[..., :3] += 40
  writer.write_scene(tmp_path, "s", rgba, cameras)
  stored = np.asarray(Image.open(tmp_path / "s/images/cam_001.png"))
  assert not stored[stored[..., 3] == 0].any()
  np.testing.assert_array_equal(stored[3, 3], [50, 240, 70, 255])


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_png_levels_are_lossless(level):
  rgb, alpha = dataset_fixtures.renders()
  rgba = writer.to_rgba8(rgb[:1], alpha[:1])[0]
  data = images.encode_png(rgba, level)
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), rgba)


def test_the_same_arrays_give_the_same_bytes(tmp_path: pathlib.Path):
  first = writer.write_scene(tmp_path / "a", "s", *small_scene())
  assert first == writer.write_scene(tmp_path / "b", "s", *small_scene())


def test_an_existing_scene_is_kept_unless_told(tmp_path: pathlib.Path):
  rgba, cameras = small_scene()
  first = writer.write_scene(tmp_path, "s", rgba, cameras)
  (tmp_path / "s" / "stray.txt").write_text("old")
  with pytest.raises(FileExistsError):
    writer.write_scene(tmp_path, "s", rgba[:, ::-1], cameras)
  second = writer.write_scene(tmp_path, "s", rgba // 2, cameras, overwrite=True)
  assert first != second
  assert writer.scene_hashes(tmp_path / "s") == second
  assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "a\n", "-x", "x" * 200, "é"])
def test_names_that_no_list_can_hold_are_refused(tmp_path: pathlib.Path, name):
  with pytest.raises(ValueError, match="scene name"):
    writer.write_scene(tmp_path, name, *small_scene())
  assert not os.listdir(tmp_path)


def test_arrays_that_do_not_fit_are_refused(tmp_path: pathlib.Path):
  rgba, cameras = small_scene()
  for bad in (rgba[..., :3], rgba[:2], rgba[:, :4], rgba.astype(np.float32)):
    with pytest.raises(ValueError, match="expected uint8"):
      writer.write_scene(tmp_path, "s", bad, cameras)
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_scene_that_breaks_off_leaves_nothing(tmp_path: pathlib.Path, monkeypatch, error):
  rgba, cameras = small_scene()
  before = writer.write_scene(tmp_path, "s", rgba, cameras)
  calls = iter([b"png", error])

  def encode(*_):
    value = next(calls)
    if isinstance(value, BaseException):
      raise value
    return value

  monkeypatch.setattr(images, "encode_png", encode)
  with pytest.raises(type(error)):
    writer.write_scene(tmp_path, "s", rgba, cameras, overwrite=True)
  assert os.listdir(tmp_path) == ["s"]
  assert writer.scene_hashes(tmp_path / "s") == before


def test_everything_is_on_the_disk_before_the_scene_appears(tmp_path: pathlib.Path, monkeypatch):
  synced, fsync = [], os.fsync

  def record(descriptor):
    synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    assert (tmp_path / "s").exists() == (synced[-1] == str(tmp_path))
    fsync(descriptor)

  monkeypatch.setattr(os, "fsync", record)
  writer.write_scene(tmp_path, "s", *small_scene())
  names = {pathlib.Path(path).name for path in synced}
  assert {"cam_000.png", "cam_001.png", "cam_002.png", "opencv_cameras.json", "images"} <= names
  assert synced[-1] == str(tmp_path)


def test_shipped_checker_accepts_what_is_written(tmp_path: pathlib.Path, shared_dir: pathlib.Path):
  views = 4  # the checker takes a second for each
  rgb, alpha = dataset_fixtures.renders(views=views)
  cameras = dataset_fixtures.cameras(views)
  writer.write_scene(tmp_path, "scene_0", writer.to_rgba8(rgb, alpha), cameras)
  lists.write_lists(tmp_path, ["scene_0"], [])
  training_yaml.write_training_yaml(tmp_path, image_size=SIZE)
  checker = shared_dir / "tools" / "check_dataset.py"
  command = [sys.executable, checker, tmp_path, f"--views={views}", f"--size={SIZE}"]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stdout
  assert "1 scenes, 0 faults" in result.stdout


# -------------------------------------------------------------------------------- kill, leftovers


_WRITER = """
import sys
from jaxsplat_mouse.dataset import scene_records, writer
from tests.dataset.dataset_fixtures import small_scene
rgba, cameras = small_scene(views=8, size=64)
print("ready", flush=True)
for i in range(10**6):
  name = f"scene_{i:04d}"
  record = scene_records.latest_records(sys.argv[1]).get(name)
  if not writer.is_complete(sys.argv[1], record):
    hashes = writer.write_scene(sys.argv[1], name, rgba, cameras, overwrite=True)
    record = scene_records.SceneRecord(scene=name, status="done", hashes=hashes)
    scene_records.append_record(sys.argv[1], record)
"""


def test_a_killed_writer_leaves_whole_scenes_only(tmp_path: pathlib.Path):
  wait = random.Random(0)
  for _ in range(3):
    with subprocess.Popen(
      [sys.executable, "-c", _WRITER, tmp_path / "d"], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
      assert process.stdout is not None
      assert process.stdout.readline() == b"ready\n"
      time.sleep(wait.uniform(0.05, 0.3))
      process.send_signal(signal.SIGKILL)
  root = tmp_path / "d"
  atomic.clean_stale(root)
  entries = sorted(p.name for p in root.iterdir() if p.is_dir())
  assert entries
  assert not [name for name in entries if name.startswith(".")]
  for name in entries:
    assert len(files_of(root / name)) == 9
  records = scene_records.latest_records(root)
  assert len(records) >= len(entries) - 1  # killed between the rename and the record
  assert all(writer.is_complete(root, record) for record in records.values())


def test_leftovers_of_dead_writers_only_are_cleaned(tmp_path: pathlib.Path):
  host, old = atomic._HOST, time.time() - 7200
  dead = subprocess.Popen(["true"])
  dead.wait()
  cases = {
    f".tmp-a@{host}@{dead.pid}@00ff00ff": True,
    f".tmp-b@{host}@{os.getpid()}@00ff00ff": True,  # this process, but nothing it is writing
    f".tmp-c@{host}@{os.getppid()}@00ff00ff": False,
    ".tmp-d@elsewhere@17@00ff00ff": False,
    ".tmp-e@elsewhere@17@00ff00fe": True,
    ".tmp-strange": False,
  }
  for name in cases:
    (tmp_path / name / "images").mkdir(parents=True)
  os.utime(tmp_path / ".tmp-e@elsewhere@17@00ff00fe", (old, old))
  (tmp_path / f".tmp-file@{host}@{dead.pid}@00ff00ff").write_text("half")
  (tmp_path / "scene").mkdir()
  with atomic.new_folder(tmp_path / "now") as writing:
    atomic.clean_stale(tmp_path)
    assert writing.is_dir()
  left = set(os.listdir(tmp_path))
  assert left == {name for name, gone in cases.items() if not gone} | {"scene", "now"}


def test_complete_means_byte_for_byte(tmp_path: pathlib.Path):
  hashes = writer.write_scene(tmp_path, "s", *small_scene())
  done = record("s", hashes=hashes)
  assert writer.is_complete(tmp_path, done)
  assert not writer.is_complete(tmp_path, None)
  assert not writer.is_complete(tmp_path, record("s", status="failed", hashes=hashes))
  assert not writer.is_complete(tmp_path, record("s"))
  image = tmp_path / "s/images/cam_001.png"
  data = image.read_bytes()
  image.write_bytes(data[:-1] + b"!")
  assert not writer.is_complete(tmp_path, done)
  image.write_bytes(data)
  assert writer.is_complete(tmp_path, done)
  image.unlink()
  assert not writer.is_complete(tmp_path, done)
