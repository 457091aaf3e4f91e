"""FaceLift scene folders: what is read, what is written, and one error line for each bad input."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import camera_file, facelift
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images

SIZE = 32
COLOUR = (200, 100, 50)


def disc(width=SIZE, height=SIZE, radius=9.0, colour=COLOUR):
  """A soft-edged disc in the middle, straight RGBA."""
  y, x = np.mgrid[:height, :width] + 0.5
  distance = np.hypot(x - width / 2, y - height / 2)
  alpha = np.clip(radius - distance + 0.5, 0, 1)
  rgba = np.zeros((height, width, 4), np.uint8)
  rgba[..., 3] = np.round(alpha * 255)
  rgba[rgba[..., 3] > 0, :3] = colour
  return rgba


def on_white(rgba):
  alpha = rgba[..., 3:] / 255.0
  return np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def write_scene(folder: pathlib.Path, views=4, image=None) -> pathlib.Path:
  (folder / "images").mkdir(parents=True)
  names = [f"images/cam_{i:03d}.png" for i in range(views)]
  for name in names:
    Image.fromarray(disc() if image is None else image).save(folder / name)
  camera_file.write_scene_cameras(
    folder, generate_camera_poses(num_views=views, image_size=SIZE), names
  )
  return folder


@pytest.fixture
def scene_dir(tmp_path: pathlib.Path) -> pathlib.Path:
  return write_scene(tmp_path / "scene")


def edit(folder: pathlib.Path, change) -> None:
  path = folder / "opencv_cameras.json"
  data = json.loads(path.read_text())
  data = change(data) or data
  path.write_text(json.dumps(data))


def error_of(folder: pathlib.Path) -> InputError:
  with pytest.raises(InputError) as caught:
    facelift.read_scene(folder)
  message = str(caught.value)
  assert "\n" not in message
  assert str(folder) in message
  return caught.value


# ---------------------------------------------------------------------------------------- reading


def test_a_scene_is_read(scene_dir: pathlib.Path):
  read = facelift.read_scene(scene_dir)
  scene, truth = read.scene, disc()
  poses = generate_camera_poses(num_views=4, image_size=SIZE)
  assert scene.images.shape == (4, SIZE, SIZE, 3)
  assert scene.images.dtype == scene.alphas.dtype == np.float32
  np.testing.assert_array_equal(np.round(scene.images[1] * 255), truth[..., :3])
  np.testing.assert_array_equal(np.round(scene.alphas[2] * 255), truth[..., 3])
  np.testing.assert_array_equal(scene.cameras.world_to_camera, poses.world_to_camera)
  np.testing.assert_array_equal(scene.cameras.intrinsics, poses.intrinsics)
  assert (scene.cameras.width, scene.cameras.height) == (SIZE, SIZE)
  np.testing.assert_array_equal(scene.frames, [[0, 0, SIZE, SIZE]] * 4)
  assert scene.view_mask.tolist() == [True] * 4
  assert read.names[3] == "images/cam_003.png"
  assert read.id == "scene"
  assert read.warnings == ()


def test_other_keys_survive(scene_dir: pathlib.Path):
  def change(data):
    data.update(id="mouse 7", units="mm")
    data["frames"][1]["azimuth"] = 90.0

  edit(scene_dir, change)
  read = facelift.read_scene(scene_dir)
  assert (read.id, read.cameras.extra) == ("mouse 7", {"units": "mm"})
  assert read.cameras.frame_extra == ({}, {"azimuth": 90.0}, {}, {})


def test_views_of_different_sizes_are_padded_and_told(scene_dir: pathlib.Path):
  Image.fromarray(disc(40, 24)).save(scene_dir / "images/cam_001.png")
  edit(scene_dir, lambda d: d["frames"][1].update(w=40, h=24, cx=21.5, cy=13.0))
  scene = facelift.read_scene(scene_dir).scene
  assert scene.images.shape == (4, 32, 40, 3)
  assert (scene.cameras.width, scene.cameras.height) == (40, 32)
  np.testing.assert_array_equal(scene.frames[0], [0, 0, 32, 32])
  np.testing.assert_array_equal(scene.frames[1], [0, 0, 40, 24])
  np.testing.assert_array_equal(scene.cameras.intrinsics[1, 2:], [21.5, 13.0])
  np.testing.assert_array_equal(np.round(scene.alphas[1, :24] * 255), disc(40, 24)[..., 3])
  assert not scene.alphas[1, 24:].any()
  assert not scene.alphas[0, :, 32:].any()


def test_sizes_may_be_left_to_the_images(scene_dir: pathlib.Path):
  edit(scene_dir, lambda d: [(f.pop("w"), f.pop("h")) for f in d["frames"]] and None)
  assert facelift.read_scene(scene_dir).cameras.sizes.tolist() == [[32, 32]] * 4
  with pytest.raises(InputError, match=re.escape("frames[0].w: missing")):
    camera_file.read_cameras(scene_dir)


def test_colour_under_alpha_0_is_dropped(tmp_path: pathlib.Path):
  image = disc()
  image[image[..., 3] == 0] = (255, 0, 255, 0)
  scene = facelift.read_scene(write_scene(tmp_path / "s", image=image)).scene
  assert not scene.images[scene.alphas == 0].any()
  assert scene.images[scene.alphas == 1].any()


def test_a_mask_at_the_edge_is_a_warning(tmp_path: pathlib.Path, caplog):
  folder = write_scene(tmp_path / "s", image=disc(radius=17.0))
  with caplog.at_level(logging.WARNING, logger="absl"):
    warnings = facelift.read_scene(folder).warnings
  assert len(warnings) == 1
  assert "touches the image edge" in warnings[0]
  assert "images/cam_002.png" in warnings[0]
  assert warnings[0] in caplog.text


def test_intrinsics_of_another_image_size_are_a_warning(scene_dir: pathlib.Path):
  edit(scene_dir, lambda d: d["frames"][2].update(cx=SIZE * 1.0, cy=SIZE * 1.0))
  (warning,) = facelift.read_scene(scene_dir).warnings
  assert "without its intrinsics" in warning
  assert "cam_002" in warning


@pytest.mark.parametrize("name", ["spot/input", "facelift_head/input", "facelift_head/target"])
def test_shipped_scenes_are_read(shared_dir: pathlib.Path, name):
  read = facelift.read_scene(shared_dir / "data" / name)
  assert read.scene.images.shape[1:] == (512, 512, 3)
  assert ("touches" in " ".join(read.warnings)) == name.startswith("facelift_head")
  assert not read.scene.images[read.scene.alphas == 0].any()


# ------------------------------------------------------------------------- silhouettes from white


def test_rgb_on_white_gets_a_soft_silhouette(tmp_path: pathlib.Path):
  truth = disc()
  read = facelift.read_scene(write_scene(tmp_path / "s", image=on_white(truth)))
  assert "no alpha channel" in read.warnings[0]
  alpha, expected = read.scene.alphas[0], truth[..., 3] / 255.0
  edge = (expected > 0.05) & (expected < 0.95)
  assert edge.sum() > 20
  assert np.abs(alpha - expected)[edge].max() < 0.05
  assert np.abs(alpha - expected).max() < 0.06
  assert np.abs(read.scene.images[0][edge] * 255 - COLOUR).max() < 8


def test_white_inside_the_animal_stays():
  image = disc()
  image[14:18, 14:18, :3] = 255
  assert images.rgba_from_white(on_white(image))[14:18, 14:18].min() == 255


def test_a_noisy_background_is_background():
  image = on_white(disc()).astype(int)
  noise = np.random.default_rng(0).integers(-6, 1, image.shape)
  rgba = images.rgba_from_white(np.where(image == 255, 255 + noise, image).astype(np.uint8))
  assert not rgba[:5].any()
  assert np.abs((rgba[..., 3] > 127).sum() - (disc()[..., 3] > 127).sum()) < 8


def test_thin_dark_lines_keep_their_colour():
  image = np.full((32, 32, 3), 255, np.uint8)
  image[:, 15], image[:, 16] = 40, 148  # one full column, one half covered
  rgba = images.rgba_from_white(image)
  assert rgba[8, 15].tolist() == [40, 40, 40, 255]
  assert abs(int(rgba[8, 16, 3]) - 127) < 3
  assert np.abs(rgba[8, 16, :3].astype(int) - 40).max() < 4


def test_winding_background_is_followed():
  walls = np.zeros((41, 41), bool)
  for i in range(2, 41, 4):
    walls[i] = True
    walls[i, 0 if i % 8 == 2 else -1] = False
  free = ~walls
  free[0], free[:, 0], free[:, -1] = False, False, False
  free[1, 0] = True
  from scipy import ndimage

  labels, _ = ndimage.label(free)
  border = np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])
  expected = np.isin(labels, border[border > 0])
  np.testing.assert_array_equal(images._connected_to_border(free), expected)


def test_an_opaque_rgba_is_treated_as_rgb(tmp_path: pathlib.Path):
  opaque = np.dstack([on_white(disc()), np.full((SIZE, SIZE), 255, np.uint8)])
  read = facelift.read_scene(write_scene(tmp_path / "s", image=opaque))
  assert "alpha is 255 everywhere" in read.warnings[0]
  assert 0.2 < read.scene.alphas.mean() < 0.3


def test_without_alpha_or_white_background_is_refused(tmp_path: pathlib.Path):
  grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
  assert "no white background" in str(error_of(write_scene(tmp_path / "s", image=grey)))


# -------------------------------------------------------------------------------------- bad images


def png_header(width, height):
  """A PNG that only claims to be large."""
  chunk = lambda kind, data: (
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  )
  header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def replace_bytes(change):
  def apply(path: pathlib.Path) -> None:
    path.write_bytes(change(path.read_bytes()))

  return apply


def as_directory(path: pathlib.Path) -> None:
  path.unlink()
  path.mkdir()


def as_pipe(path: pathlib.Path) -> None:
  path.unlink()
  os.mkfifo(path)


@pytest.mark.parametrize(
  ("damage", "problem"),
  [
    (lambda p: p.unlink(), "no such image"),
    (as_directory, "no such image"),
    (as_pipe, "no such image"),
    (replace_bytes(lambda b: b""), "not an image"),
    (replace_bytes(lambda b: b"text"), "not an image"),
    (replace_bytes(lambda b: b[:-60]), "broken image"),
    (replace_bytes(lambda b: b[: len(b) // 2]), "broken image"),
    (replace_bytes(lambda b: b[:20]), "image"),
    (replace_bytes(lambda b: b[:60] + b"\0" * 30 + b[90:]), "broken image"),
    (lambda p: p.write_bytes(png_header(60000, 60000)), "too large"),
    (lambda p: p.write_bytes(png_header(20000, 2)), "1 to 16384 per side"),
    (lambda p: Image.fromarray(disc()).convert("L").save(p), "mode L"),
    (lambda p: Image.fromarray(disc()).convert("LA").save(p), "mode LA"),
    (lambda p: Image.fromarray(disc()).convert("P").save(p), "mode P"),
    (lambda p: Image.fromarray(disc()[..., 0].astype(np.uint16)).save(p), "mode I;16"),
    (lambda p: Image.fromarray(disc()).save(p, format="GIF"), "not an image"),
    (lambda p: Image.fromarray(disc() * 0).save(p), "empty silhouette"),
    (lambda p: Image.fromarray(disc(radius=0.4)).save(p), "empty silhouette"),
  ],
)
def test_bad_images_are_named(scene_dir: pathlib.Path, damage, problem):
  damage(scene_dir / "images/cam_002.png")
  error = error_of(scene_dir)
  assert problem in str(error)
  assert "cam_002.png" in str(error)
  assert error.field == "frames[2].file_path"


def test_a_claimed_large_image_is_not_decoded(scene_dir: pathlib.Path, monkeypatch):
  (scene_dir / "images/cam_000.png").write_bytes(png_header(16385, 16))
  monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
  assert "16385 x 16" in str(error_of(scene_dir))


@pytest.mark.parametrize("key", ["w", "h"])
def test_sizes_that_contradict_the_image(scene_dir: pathlib.Path, key):
  edit(scene_dir, lambda d: d["frames"][1].update({key: 64}))
  error = error_of(scene_dir)
  assert error.field == f"frames[1].{key}"
  assert "64, but images/cam_001.png is 32 x 32" in str(error)


# -------------------------------------------------------------------------------- bad camera files


def set_frame(**values):
  return lambda data: data["frames"][1].update(values)


def pose(change):
  def apply(data):
    w2c = np.array(data["frames"][1]["w2c"])
    data["frames"][1]["w2c"] = np.asarray(change(w2c)).tolist()

  return apply


def opengl(data):
  for frame in data["frames"]:
    frame["w2c"] = (np.diag([1.0, -1, -1, 1]) @ np.array(frame["w2c"])).tolist()


@pytest.mark.parametrize(
  ("change", "field", "problem"),
  [
    (lambda d: [1, 2], "", "expected an object"),
    (lambda d: {"id": "x"}, "frames", "missing or empty"),
    (lambda d: {"frames": []}, "frames", "missing or empty"),
    (lambda d: {"frames": {"0": 1}}, "frames", "missing or empty"),
    (lambda d: d["frames"].__setitem__(1, 5), "frames[1]", "expected an object"),
    (lambda d: d.update(id=["x"]), "id", "expected a text"),
    *[
      (lambda d, k=k: d["frames"][1].pop(k) and None, f"frames[1].{k}", "missing")
      for k in ("fx", "fy", "cx", "cy", "w2c", "file_path")
    ],
    (set_frame(fx="548"), "frames[1].fx", "expected a number"),
    (set_frame(cy=None), "frames[1].cy", "expected a number"),
    (set_frame(cx=True), "frames[1].cx", "expected a number"),
    (set_frame(fy=float("nan")), "frames[1].fy", "finite"),
    (set_frame(cx=float("inf")), "frames[1].cx", "finite"),
    (set_frame(fx=10**400), "frames[1].fx", "finite"),
    (set_frame(fx=0), "frames[1].fx", "> 0"),
    (set_frame(fy=-20.0), "frames[1].fy", "> 0"),
    (set_frame(w=0), "frames[1].w", "whole pixels"),
    (set_frame(h=32.5), "frames[1].h", "whole pixels"),
    (set_frame(w=10**6), "frames[1].w", "whole pixels"),
    (set_frame(file_path=3), "frames[1].file_path", "relative path"),
    (set_frame(file_path=" "), "frames[1].file_path", "relative path"),
    (set_frame(file_path="a\0b"), "frames[1].file_path", "relative path"),
    (set_frame(file_path="../a\nb"), "frames[1].file_path", "relative path"),
    (set_frame(w2c=[[1, 0, 0, 0]] * 3), "frames[1].w2c", "4x4"),
    (set_frame(w2c=[1.0] * 16), "frames[1].w2c", "4x4"),
    (set_frame(w2c="eye"), "frames[1].w2c", "4x4"),
    (set_frame(w2c=[[1, 0, 0, "0"], *np.eye(4)[1:].tolist()]), "frames[1].w2c[0][3]", "a number"),
    (pose(lambda w: w + np.diag([np.nan, 0, 0, 0])), "frames[1].w2c[0][0]", "finite"),
    (pose(lambda w: np.diag([1, -1, 1, 1]) @ w), "frames[1].w2c", "mirrored"),
    (pose(lambda w: np.diag([2, 2, 2, 1]) @ w), "frames[1].w2c", "scale of 2 "),
    (pose(lambda w: w + np.eye(4, k=1) * 0.01), "frames[1].w2c", "not a rotation"),
    (pose(lambda w: np.zeros((4, 4)) + np.diag([0, 0, 0, 1])), "frames[1].w2c", "not a rotation"),
    (pose(lambda w: w * 2), "frames[1].w2c", "last row"),
    (pose(lambda w: w.T), "frames[1].w2c", "transposed"),
    (lambda d: d.update(frames=d["frames"][:2]), "frames", "at least 3"),
    (lambda d: d["frames"][3].update(w2c=d["frames"][1]["w2c"]), "frames[3].w2c", "same camera as"),
    (set_frame(file_path="images/cam_000.png"), "frames[1].file_path", "as in frames[0]"),
    (opengl, "frames", "looks away"),
  ],
)
def test_bad_camera_files_are_named(scene_dir: pathlib.Path, change, field, problem):
  edit(scene_dir, change)
  error = error_of(scene_dir)
  assert error.field == field
  assert problem in str(error)
  assert "expected" in str(error)
  assert error.path.endswith("opencv_cameras.json")


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    (b"", "JSON"),
    (b'{"frames": [', "JSON"),
    (b"\xff\xfe\x00", "JSON"),
    (b"[" * 100000, "JSON"),
  ],
)
def test_broken_json_is_told(scene_dir: pathlib.Path, text, problem):
  (scene_dir / "opencv_cameras.json").write_bytes(text)
  assert problem in str(error_of(scene_dir))


def test_missing_files_and_folders_are_told(tmp_path: pathlib.Path, scene_dir: pathlib.Path):
  assert "no such folder" in str(error_of(tmp_path / "none"))
  (scene_dir / "opencv_cameras.json").unlink()
  assert "no such file" in str(error_of(scene_dir))


def test_small_rounding_of_a_rotation_is_accepted(scene_dir: pathlib.Path):
  edit(scene_dir, pose(lambda w: np.round(w, 4)))
  facelift.read_scene(scene_dir)


# ------------------------------------------------------------------------------------------- paths


def test_paths_that_leave_the_scene_are_refused(tmp_path: pathlib.Path, scene_dir: pathlib.Path):
  outside = tmp_path / "secret.png"
  shutil.copy(scene_dir / "images/cam_001.png", outside)
  for name, problem in [
    (str(outside), "absolute"),
    ("C:\\secret.png", "absolute"),
    ("../secret.png", "leads out"),
    ("images/../../secret.png", "leads out"),
    (".", "leads out"),
  ]:
    edit(scene_dir, set_frame(file_path=name))
    error = error_of(scene_dir)
    assert problem in str(error), name
    assert error.field == "frames[1].file_path"


def test_links_that_leave_the_scene_are_refused(tmp_path: pathlib.Path, scene_dir: pathlib.Path):
  image = scene_dir / "images/cam_001.png"
  image.rename(tmp_path / "secret.png")
  image.symlink_to(tmp_path / "secret.png")
  assert "leads out" in str(error_of(scene_dir))
  image.unlink()
  image.symlink_to(image)
  assert error_of(scene_dir).field == "frames[1].file_path"
  image.unlink()
  image.symlink_to("cam_000.png")  # inside: fine
  facelift.read_scene(scene_dir)


def test_a_linked_image_folder_is_refused_but_a_linked_scene_is_not(
  tmp_path: pathlib.Path, scene_dir: pathlib.Path
):
  (tmp_path / "link").symlink_to(scene_dir)
  facelift.read_scene(tmp_path / "link")
  (scene_dir / "images").rename(tmp_path / "elsewhere")
  (scene_dir / "images").symlink_to(tmp_path / "elsewhere")
  assert "leads out" in str(error_of(scene_dir))
