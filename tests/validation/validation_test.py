"""The validator: clean where all is well, and each check fails when its one thing is corrupted."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse import validation
from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import lists, scene_records, training_yaml, writer
from jaxsplat_mouse.validation import dataset_checks, geometry_checks, rules, scene_checks
from tests.dataset import dataset_fixtures
from tests.dataset.dataset_fixtures import SIZE, VIEWS, edit_frames

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = rules.Rules(views=VIEWS, size=SIZE, hull_resolution=64)


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  root = tmp_path_factory.mktemp("validate") / "dataset"
  for name, scale in (("scene_0", 1.0), ("scene_1", 0.9)):
    rgb, alpha = dataset_fixtures.renders(scale)
    hashes = writer.write_scene(root, name, writer.to_rgba8(rgb, alpha), dataset_fixtures.cameras())
    record = scene_records.SceneRecord(scene=name, status="done", hashes=hashes)
    scene_records.append_record(root, record)
  lists.write_lists(root, ["scene_0"], ["scene_1"])
  training_yaml.write_training_yaml(root, image_size=SIZE)
  return root


@pytest.fixture
def root(tmp_path: pathlib.Path, clean: pathlib.Path) -> pathlib.Path:
  """A copy of the clean dataset to corrupt, with paths of its own."""
  shutil.copytree(clean, tmp_path / "d")
  dataset_checks.relocate_dataset(tmp_path / "d")
  return tmp_path / "d"


@pytest.fixture
def scene(root: pathlib.Path) -> pathlib.Path:
  return root / "scene_0"


def faults_of(scene: pathlib.Path, **changes) -> list[str]:
  """Faults of one scene, each a line that begins with a path."""
  values = {**vars(RULES), **changes}
  _, faults = scene_checks.check_scene(scene, rules.Rules(**values))
  assert all(fault.startswith(str(scene)) and "\n" not in fault for fault in faults)
  return faults


def test_a_clean_dataset_has_no_faults(root: pathlib.Path):
  report = dataset_checks.check_dataset(root, RULES)
  assert report.faults == []
  assert report.scenes == {"train": 1, "val": 1}
  assert report.views == 2 * VIEWS


def test_a_single_scene_folder_is_checked(scene: pathlib.Path):
  report = dataset_checks.check_dataset(scene, RULES)
  assert (report.faults, report.scenes, report.views) == ([], {"scene": 1}, VIEWS)


def test_it_shares_no_code_with_what_it_checks():
  for path in pathlib.Path(validation.__file__).parent.glob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
      names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
      for name in names:
        if name.split(".")[0] in ("jaxsplat_mouse", ""):
          assert name.startswith("jaxsplat_mouse.validation"), (path.name, name)


def test_the_orbit_is_the_published_one(shared_dir: pathlib.Path):
  path = shared_dir / "data/facelift_head/target/opencv_cameras.json"
  for i, frame in enumerate(json.loads(path.read_text())["frames"]):
    pose = geometry_checks.orbit_pose(np.radians(11.25 * i), np.radians(20.0), 2.7)
    np.testing.assert_allclose(pose, frame["w2c"], atol=1e-6)


@pytest.mark.parametrize(
  ("name", "flags"),
  [("facelift_head/target", "may_touch_edge"), ("spot/target", "any_hidden_colour")],
)
def test_shipped_scenes_pass_and_only_with_their_flag(shared_dir: pathlib.Path, name, flags):
  folder = shared_dir / "data" / name
  assert dataset_checks.check_dataset(folder, rules.Rules(**{flags: True})).faults == []
  assert len(dataset_checks.check_dataset(folder, rules.Rules()).faults) == 32


# --------------------------------------------------------------------------------------- cameras


def poses(change):
  """Corrupts every pose: change(w2c (4, 4), azimuth) -> (4, 4)."""

  def apply(data):
    for i, frame in enumerate(data["frames"]):
      w2c = change(np.array(frame["w2c"]), 2 * np.pi * i / VIEWS)
      frame["w2c"] = np.asarray(w2c).tolist()

  return apply


def one_pose(change):
  def apply(data):
    data["frames"][3]["w2c"] = np.asarray(change(np.array(data["frames"][3]["w2c"]))).tolist()

  return apply


def frame(**values):
  return lambda data: data["frames"][3].update(values)


LIFT = np.radians(20.0)
ORBIT = geometry_checks.orbit_pose


@pytest.mark.parametrize(
  ("change", "field", "problem", "at_least"),
  [
    (poses(lambda w, a: ORBIT(np.pi / 2 - a, LIFT, 2.7)), "w2c", "sine and cosine", VIEWS - 2),
    (poses(lambda w, a: ORBIT(-a, LIFT, 2.7)), "w2c", "clockwise", 8),
    (poses(lambda w, a: ORBIT(a + 0.1, LIFT, 2.7)), "w2c", "azimuth 5.730", 1),
    (poses(lambda w, a: ORBIT(a, LIFT, 2.6)), "w2c", "distance 2.6000", VIEWS),
    (poses(lambda w, a: ORBIT(a, LIFT + 0.1, 2.7)), "w2c", "elevation 25.730", VIEWS),
    (poses(lambda w, a: ORBIT(a, -LIFT, 2.7)), "w2c", "wrong sign", VIEWS),
    (poses(lambda w, a: np.linalg.inv(w)), "w2c", "camera-to-world", VIEWS),
    (poses(lambda w, a: np.diag([1, -1, -1, 1]) @ w), "w2c", "OpenGL axes", VIEWS),
    (poses(lambda w, a: np.diag([1, 1, -1, 1]) @ w), "w2c", "[right, -up, -forward]", VIEWS),
    (poses(lambda w, a: np.diag([1, -1, 1, 1]) @ w), "w2c", "mirrored", VIEWS),
    (one_pose(lambda w: np.diag([-1, 1, 1, 1]) @ w), "frames[3].w2c", "determinant -1.000", 1),
    (one_pose(lambda w: np.diag([1.1] * 3 + [1]) @ w), "frames[3].w2c", "not a rotation", 1),
    (one_pose(lambda w: w + 2e-5 * np.eye(4, k=3)), "frames[3].w2c", "2e-05 off the orbit", 1),
    (one_pose(lambda w: w + np.eye(4)[::-1] * [1, 0, 0, 0]), "frames[3].w2c", "last row", 1),
    (one_pose(lambda w: w[:3]), "frames[3].w2c", "4x4", 1),
    (one_pose(lambda w: w * np.nan), "frames[3].w2c", "4x4 finite", 1),
    (frame(w2c="x"), "frames[3].w2c", "4x4", 1),
    (frame(fx=SIZE / 2 / np.tan(np.radians(49.1 / 2))), "frames[3].fx", "FOV 49.10", 1),
    (frame(fy=85.79), "frames[3].fy", "expected 85.78", 1),
    (frame(cx=SIZE / 2 - 0.5), "frames[3].cx", "39.5000; expected 40", 1),
    (frame(cy=SIZE / 2 + 0.01), "frames[3].cy", "expected 40", 1),
    (frame(fx="1"), "frames[3].fx", "finite number", 1),
    (frame(fx=float("nan")), "frames[3].fx", "finite number", 1),
    (frame(w=SIZE * 2), "frames[3].w, h", f"expected the image's {SIZE} x {SIZE}", 1),
    (lambda d: d["frames"][3].pop("w2c") and None, "frames[3].w2c", "missing", 1),
    (lambda d: d["frames"][3].pop("h") and None, "frames[3].h", "missing", 1),
    (lambda d: d["frames"].__setitem__(3, 7), "frames[3]", "expected an object", 1),
    (lambda d: d["frames"].pop() and None, "frames", f"{VIEWS - 1}; expected {VIEWS}", 1),
    (lambda d: {"frames": {}}, "", "no list of cameras", 1),
    (lambda d: {"id": 1}, "", "no key 'frames'", 1),
    (lambda d: [1], "", "expected a JSON object", 1),
    (frame(file_path="images/cam_000.png"), "frames[3].file_path", "as in frames[0]", 1),
    (frame(file_path="images/none.png"), "frames[3].file_path", "missing", 1),
    (frame(file_path="/etc/hostname"), "frames[3].file_path", "leads out", 1),
    (frame(file_path="../scene_1/images/cam_003.png"), "frames[3].file_path", "leads out", 1),
    (frame(file_path=None), "frames[3].file_path", "relative path", 1),
    (frame(file_path="../a\nb"), "frames[3].file_path", "relative path", 1),
  ],
)
def test_a_wrong_camera_file(scene: pathlib.Path, change, field, problem, at_least):
  edit_frames(scene, change)
  faults = [f for f in faults_of(scene) if problem in f and f"opencv_cameras.json: {field}" in f]
  if field == "w2c":
    faults = [f for f in faults_of(scene) if problem in f and ".w2c: " in f]
  assert len(faults) >= at_least, faults_of(scene)


def test_a_camera_within_the_tolerance_passes(scene: pathlib.Path):
  edit_frames(scene, one_pose(lambda w: w + 5e-6 * np.eye(4, k=3)))
  assert faults_of(scene) == []


def test_a_broken_or_missing_camera_file(scene: pathlib.Path):
  path = scene / "opencv_cameras.json"
  path.write_text(path.read_text()[:500])
  assert "opencv_cameras.json" in faults_of(scene)[0]
  path.unlink()
  assert "No such file" in faults_of(scene)[0]


def test_cameras_of_ones_own(scene: pathlib.Path):
  """--noorbit: any rigid cameras, but still cameras, images and one solid."""
  turn = np.eye(4)
  turn[:3, :3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
  turn[:3, 3] = [5.0, -3.0, 1.0]
  edit_frames(scene, poses(lambda w, _: np.diag([1, 1, 1, 1]) @ w @ turn))
  assert faults_of(scene)
  assert faults_of(scene, orbit=False) == []
  edit_frames(scene, frame(fx=-1))
  assert "fx, fy" in faults_of(scene, orbit=False)[0]


# ---------------------------------------------------------------------------------------- images


def image(change):
  """Corrupts one image: change(rgba uint8 (S, S, 4)) -> array to store."""

  def apply(scene: pathlib.Path) -> None:
    path = scene / "images/cam_003.png"
    Image.fromarray(change(np.array(Image.open(path)))).save(path)

  return apply


def premultiplied(rgba):
  rgba[..., :3] = np.round(rgba[..., :3] * (rgba[..., 3:] / 255.0))
  return rgba


def hidden(rgba):
  rgba[0, 0, :3] = 1
  return rgba


def shifted(rgba):
  return np.roll(rgba, SIZE // 2, 1)


def wide(rgba):
  return np.pad(rgba, ((0, 0), (4, 4), (0, 0)))


def cut(scene: pathlib.Path) -> None:
  path = scene / "images/cam_003.png"
  path.write_bytes(path.read_bytes()[:-40])


def flip_a_byte(scene: pathlib.Path) -> None:
  path = scene / "images/cam_003.png"
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0xFF
  path.write_bytes(data)


def jpeg(scene: pathlib.Path) -> None:
  path = scene / "images/cam_003.png"
  Image.open(path).convert("RGB").save(path, format="JPEG")


def linked_outside(scene: pathlib.Path) -> None:
  path = scene / "images/cam_003.png"
  path.rename(scene.parent.parent / "outside.png")
  path.symlink_to(scene.parent.parent / "outside.png")


@pytest.mark.parametrize(
  ("damage", "problem"),
  [
    (lambda s: (s / "images/cam_003.png").unlink(), "missing"),
    (cut, "broken"),
    (flip_a_byte, "broken"),
    (lambda s: (s / "images/cam_003.png").write_bytes(b""), "broken"),
    (jpeg, "broken"),
    (linked_outside, "leads out"),
    (image(lambda x: x[..., :3]), "RGB of 80 x 80; expected RGBA"),
    (image(lambda x: x[..., 0]), "expected RGBA"),
    (image(lambda x: x[::2, ::2]), f"expected {SIZE} x {SIZE}"),
    (image(wide), f"expected {SIZE} x {SIZE}"),
    (image(hidden), "colour under alpha 0 in 1 pixels"),
    (image(premultiplied), "multiplied by alpha"),
    (image(lambda x: x * 0), "empty silhouette"),
    (image(lambda x: x // 4), "empty silhouette"),
    (image(lambda x: x | np.uint8([0, 0, 0, 255])), "solid everywhere"),
    (image(shifted), "touches the image edge"),
    (image(lambda x: np.roll(x, 12, 1)), "one solid"),
    (image(lambda x: x[::-1].copy()), "one solid"),
  ],
)
def test_a_wrong_image(scene: pathlib.Path, damage, problem):
  assert faults_of(scene) == []
  damage(scene)
  faults = faults_of(scene)
  assert any(problem in fault for fault in faults), faults
  assert any("cam_003.png" in fault or "frames[" in fault for fault in faults)


def test_images_in_the_wrong_order_are_no_solid(scene: pathlib.Path):
  names = [f"images/cam_{i:03d}.png" for i in range(VIEWS)]

  def reverse(data):
    for item, name in zip(data["frames"], reversed(names), strict=True):
      item["file_path"] = name

  edit_frames(scene, reverse)
  (fault,) = faults_of(scene)
  assert "do not come from one solid" in fault


def tail_views(size: int = 256, views: int = 16) -> list[geometry_checks.Frame]:
  """Exact silhouettes of a curved tube, three pixels thick."""
  turn = np.linspace(0, 1.5 * np.pi, 600)
  line = np.stack([0.7 * np.cos(turn), 0.7 * np.sin(turn), 0.25 * np.sin(2 * turn)], -1)
  orbit = generate_camera_poses(views, image_size=size)
  found = []
  for w2c, k in zip(orbit.world_to_camera.astype(np.float64), orbit.intrinsics, strict=True):
    local = line @ w2c[:3, :3].T + w2c[:3, 3]
    u, v = (local[:, :2] / local[:, 2:] * k[:2] + k[2:]).T
    y, x = np.mgrid[:size, :size] + 0.5
    mask = np.zeros((size, size), bool)
    for column, row in zip(u, v, strict=True):
      mask |= (x - column) ** 2 + (y - row) ** 2 < 1.5**2
    found.append(geometry_checks.Frame(w2c=w2c, intrinsics=np.asarray(k, np.float64), mask=mask))
  return found


def test_a_thin_tail_is_a_solid_and_a_shifted_one_is_not():
  """What a first, coarse grid finds too little of is looked at with a finer one."""
  wanted, views = rules.Rules(hull_resolution=64), tail_views()
  assert geometry_checks.hull_shares(views, 64).min() < 0.9
  assert not list(geometry_checks.check_solid(views, wanted))
  views[5] = dataclasses.replace(views[5], mask=np.roll(views[5].mask, 6, 1))
  (fault,) = geometry_checks.check_solid(views, wanted)
  assert "do not come from one solid" in fault


def test_flags_allow_what_they_say(scene: pathlib.Path):
  image(hidden)(scene)
  assert faults_of(scene)
  assert faults_of(scene, any_hidden_colour=True) == []
  image(shifted)(scene)
  faults = faults_of(scene, any_hidden_colour=True, may_touch_edge=True)
  assert not [f for f in faults if "edge" in f]
  assert faults_of(scene, any_hidden_colour=True, may_touch_edge=True, hull_iou=0.0) == []


@pytest.mark.parametrize("colour", [(9, 9, 9), (25, 20, 18), (3, 3, 3), (200, 100, 50)])
def test_black_animals_are_not_taken_for_premultiplied(colour):
  _, alpha = dataset_fixtures.renders()
  rgba = writer.to_rgba8(np.array(colour) / 255 * alpha[..., None], alpha)[0]
  assert not scene_checks._looks_premultiplied(rgba)
  faded = premultiplied(rgba)
  assert scene_checks._looks_premultiplied(faded) or max(colour) < 5


# ----------------------------------------------------------------------------------------- lists


def rewrite(name, change):
  def apply(root: pathlib.Path) -> None:
    path = root / name
    path.write_text(change(path.read_text()))

  return apply


def copy_scene(root: pathlib.Path, name: str) -> None:
  shutil.copytree(root / "scene_0", root / name)


def move_outside(root: pathlib.Path) -> None:
  shutil.copytree(root / "scene_0", root.parent / "elsewhere")
  (root / "train.txt").write_text(f"{root.parent / 'elsewhere'}\n")


def manifest(change):
  """Rewrites the manifest: change(list of lines) -> list of lines."""
  return rewrite("manifest.jsonl", lambda text: "\n".join(change(text.splitlines())) + "\n")


def rerecord(**values):
  return manifest(lambda lines: [json.dumps({**json.loads(lines[0]), **values}), lines[1]])


def later_png(root: pathlib.Path) -> None:
  path = root / "scene_1/images/cam_000.png"
  Image.open(path).save(path, compress_level=9)


@pytest.mark.parametrize(
  ("damage", "problem"),
  [
    (lambda r: (r / "train.txt").unlink(), "train.txt: No such file"),
    (lambda r: (r / "val.txt").unlink(), "val.txt: No such file"),
    (rewrite("train.txt", lambda t: ""), "train.txt: empty"),
    (rewrite("train.txt", lambda t: t + "\n" + t), "line 2: blank"),
    (rewrite("train.txt", lambda t: t + t), "listed in train.txt already"),
    (rewrite("val.txt", lambda t: t + t.replace("_1", "_0")), "listed in train.txt already"),
    (rewrite("val.txt", lambda t: "scene_0/../scene_0\n" + t), "listed in train.txt already"),
    (rewrite("val.txt", lambda t: t + "scene_9\n"), "no such scene folder"),
    (rewrite("val.txt", lambda t: ""), "scene_1: in no list"),
    (lambda r: copy_scene(r, "scene_2"), "scene_2: in no list"),
    (lambda r: shutil.rmtree(r / "scene_1"), "scene_1: no such scene folder"),
    (move_outside, "lies outside"),
    (lambda r: copy_scene(r, ".tmp-scene_3@host@1@00ff"), ".tmp-scene_3@host@1@00ff: left by"),
    (lambda r: (r / "scene_1/.tmp-x").write_text(""), "scene_1/.tmp-x: left by"),
    (lambda r: (r / ".tmp-train.txt").write_text(""), ".tmp-train.txt: left by"),
    (rewrite("manifest.jsonl", lambda t: t[:-30]), "manifest.jsonl: line 2: cut or broken"),
    (rewrite("manifest.jsonl", lambda t: t[:-1]), "manifest.jsonl: line 2: cut or broken"),
    (manifest(lambda lines: ["", *lines]), "manifest.jsonl: line 1: cut or broken"),
    (manifest(lambda lines: ["[]", *lines]), "manifest.jsonl: line 1: cut or broken"),
    (manifest(lambda lines: lines[:1]), "scene_1: listed, but without a record"),
    (rerecord(status="failed"), "scene_0: listed, but its status is failed"),
    (rerecord(scene="scene_7"), "scene_7: done, but in no list"),
    (later_png, "scene_1/images/cam_000.png: changed since it was written"),
    (lambda r: (r / "scene_1/notes.txt").write_text(""), "notes.txt: not in manifest.jsonl"),
    (lambda r: (r / "scene_1/images/cam_004.png").unlink(), "cam_004.png: missing"),
    (rewrite("mouse_gslrm_synthetic.yaml", lambda t: t.replace("train.txt", "t.txt")), "t.txt d"),
    (rewrite("mouse_gslrm_synthetic.yaml", lambda t: t + "]"), "training configuration"),
    (rewrite("mouse_gslrm_synthetic.yaml", lambda t: "a: 1"), "no key 'training'"),
  ],
)  # fmt: skip
def test_a_wrong_dataset(root: pathlib.Path, damage, problem):
  damage(root)
  faults = dataset_checks.check_dataset(
    root, rules.Rules(**{**vars(RULES), "hull_iou": 0.0})
  ).faults
  assert any(problem in fault for fault in faults), faults
  assert all("\n" not in fault for fault in faults)


def test_rejected_scenes_may_be_left_out_of_the_lists(root: pathlib.Path):
  (root / "val.txt").write_text("")
  manifest(lambda lines: [*lines, json.dumps({**json.loads(lines[1]), "status": "rejected"})])(root)
  assert dataset_checks.check_dataset(root, RULES).faults == []


def test_a_dataset_without_manifest_and_config_is_one(root: pathlib.Path):
  (root / "manifest.jsonl").unlink()
  (root / "mouse_gslrm_synthetic.yaml").unlink()
  assert dataset_checks.check_dataset(root, RULES).faults == []


def test_relative_lines_are_taken_from_the_dataset(root: pathlib.Path):
  lists.write_lists(root, ["scene_0"], ["scene_1"], relative=True)
  assert dataset_checks.check_dataset(root, RULES).faults == []


def test_every_fault_of_many_scenes_is_found(root: pathlib.Path):
  for name in ("scene_0", "scene_1"):
    image(hidden)(root / name)
  faults = dataset_checks.check_dataset(root, RULES).faults
  assert len([f for f in faults if "colour under alpha 0" in f]) == 2
  assert len([f for f in faults if "changed since" in f]) == 2


# -------------------------------------------------------------------------------------- relocate


def test_a_moved_dataset_is_found_out_and_relocated(root: pathlib.Path):
  new = root.parent / "new place"
  root.rename(new)
  faults = dataset_checks.check_dataset(new, RULES).faults
  assert any("moved? run with --relocate" in fault for fault in faults)
  assert any("mouse_gslrm_synthetic.yaml" in fault for fault in faults)
  changed = dataset_checks.relocate_dataset(new)
  assert changed == ["train.txt", "val.txt", "mouse_gslrm_synthetic.yaml"]
  assert dataset_checks.check_dataset(new, RULES).faults == []
  assert dataset_checks.relocate_dataset(new) == []
  assert str(root) + "/" not in (new / "mouse_gslrm_synthetic.yaml").read_text()


def test_a_copied_dataset_does_not_lean_on_the_old_one(root: pathlib.Path):
  shutil.copytree(root, root.parent / "copy")
  faults = dataset_checks.check_dataset(root.parent / "copy", RULES).faults
  assert any("lies outside" in fault and "--relocate" in fault for fault in faults)
  dataset_checks.relocate_dataset(root.parent / "copy")
  assert dataset_checks.check_dataset(root.parent / "copy", RULES).faults == []
  assert dataset_checks.check_dataset(root, RULES).faults == []


def test_relocation_keeps_the_lines_of_other_datasets(root: pathlib.Path):
  other = root.parent / "objaverse"
  (other / "o1").mkdir(parents=True)
  (other / "train.txt").write_text(f"{other}/o1\n")
  training_yaml.write_training_yaml(root, objaverse_list=other / "train.txt", image_size=SIZE)
  new = root.rename(root.parent / "moved")
  dataset_checks.relocate_dataset(new)
  lines = (new / "train_mixed.txt").read_text().splitlines()
  assert set(lines) == {f"{other}/o1", f"{new}/scene_0"}
  assert f"{other}/train.txt" in (new / "mouse_gslrm_synthetic.yaml").read_text()
  assert dataset_checks.check_dataset(new, RULES).faults == []


# --------------------------------------------------------------------------------------- command


def run(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, "-m", "jaxsplat_mouse.validate", *arguments]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_exit_status_and_counts(root: pathlib.Path):
  flags = [f"--views={VIEWS}", f"--size={SIZE}"]
  result = run(root, *flags)
  assert (result.returncode, result.stderr) == (0, "")
  assert result.stdout == f"2 scenes (train 1, val 1), {2 * VIEWS} views, 0 faults\n"
  for name in ("scene_0", "scene_1"):
    image(hidden)(root / name)
  result = run(root, *flags, "--any-hidden-colour", "--max-faults=1")
  assert result.returncode == 1
  lines = result.stdout.splitlines()
  assert len(lines) == 3
  assert "cam_003.png: changed since" in lines[0]
  assert lines[1] == "... and 1 more (--max_faults=0 prints all)"
  assert lines[2].endswith("2 faults")


def test_the_command_relocates(root: pathlib.Path):
  new = root.rename(root.parent / "new")
  result = run(new, f"--views={VIEWS}", f"--size={SIZE}", "--relocate")
  assert result.returncode == 0, result.stdout
  assert "relocated: train.txt, val.txt" in result.stdout


def test_what_is_no_dataset_is_told_in_a_line(tmp_path: pathlib.Path):
  for arguments, problem in [
    ((tmp_path / "none",), "no such folder"),
    ((tmp_path,), "train.txt"),
    ((), "DATASET: missing"),
  ]:
    result = run(*arguments)
    assert result.returncode == 1
    assert problem in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_help_teaches_and_starts_no_device():
  result = run("--help")
  for words in ("FaceLift", "--relocate", "Exit status", "may_touch_edge", "counter-clockwise"):
    assert words in result.stdout
  code = "import sys, jaxsplat_mouse.validate; print('jax' in sys.modules)"
  check = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
  assert check.stdout == b"False\n"
