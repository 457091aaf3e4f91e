"""COLMAP sparse models: text and binary alike, five camera models, masks, broken files."""

from __future__ import annotations

import dataclasses
import pathlib
import struct

import numpy as np
import pytest

from jaxsplat_mouse.capture.formats import colmap
from jaxsplat_mouse.capture.rig import Rig
from tests.capture.formats.format_fixtures import SIZE, make_rig, same_rig, write_image
from tests.io.file_fixtures import refused, write_huge_header

PARAMETERS = {  # what each model keeps of fx fy cx cy k1 k2 p1 p2
  "SIMPLE_PINHOLE": lambda f, fy, cx, cy, k1, k2, p1, p2: (f, cx, cy),
  "PINHOLE": lambda f, fy, cx, cy, k1, k2, p1, p2: (f, fy, cx, cy),
  "SIMPLE_RADIAL": lambda f, fy, cx, cy, k1, k2, p1, p2: (f, cx, cy, k1),
  "RADIAL": lambda f, fy, cx, cy, k1, k2, p1, p2: (f, cx, cy, k1, k2),
  "OPENCV": lambda f, fy, cx, cy, k1, k2, p1, p2: (f, fy, cx, cy, k1, k2, p1, p2),
  "FULL_OPENCV": lambda *values: (*values, 0, 0, 0, 0),
}
KEPT = {
  "SIMPLE_PINHOLE": 0,
  "PINHOLE": 0,
  "SIMPLE_RADIAL": 1,
  "RADIAL": 2,
  "OPENCV": 4,
  "FULL_OPENCV": 4,
}


def truth(model: str) -> Rig:
  rig = make_rig()
  matrices, distortion = rig.matrices.copy(), rig.distortion.copy()
  matrices[:, 0, 1] = 0
  distortion[:, KEPT[model] :] = 0
  if model not in ("PINHOLE", "OPENCV"):
    matrices[:, 1, 1] = matrices[:, 0, 0]
  return dataclasses.replace(rig, matrices=matrices, distortion=distortion, unit="")


def quaternion(rotation: np.ndarray) -> np.ndarray:
  """w x y z, from the eigenvector of the largest eigenvalue (Bar-Itzhack 2000)."""
  r = rotation
  k = np.array(
    [
      [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
      [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
      [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
      [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
    ]
  )
  x, y, z, w = np.linalg.eigh(k)[1][:, -1]
  return np.array([w, x, y, z])


def rows(rig: Rig, model: str):
  """(camera number, parameters, quaternion and translation, name) of each image."""
  for i, (k, pose, d) in enumerate(
    zip(rig.matrices, rig.world_to_camera, rig.distortion, strict=True)
  ):
    values = PARAMETERS[model](k[0, 0], k[1, 1], k[0, 2], k[1, 2], *d[:4])
    yield i + 5, values, [*quaternion(pose[:3, :3]), *pose[:3, 3]], f"view {i}.png"


def write_text(folder: pathlib.Path, rig: Rig, model: str) -> None:
  cameras, images = ["# Camera list"], ["# Image list", "# IMAGE_ID, QW, QX, ..."]
  for i, (camera, values, pose, name) in enumerate(rows(rig, model)):
    cameras.append(
      f"{camera} {model} {SIZE[0]} {SIZE[1]} " + " ".join(map(repr, map(float, values)))
    )
    images.append(f"{9 - i} " + " ".join(map(repr, map(float, pose))) + f" {camera} {name}")
    images.append("1.5 2.5 -1 3.5 4.5 7" if i % 2 else "")
  folder.mkdir(parents=True)
  (folder / "cameras.txt").write_text("\n".join(cameras) + "\n")
  (folder / "images.txt").write_text("\n".join(images) + "\n")


def write_binary(folder: pathlib.Path, rig: Rig, model: str) -> None:
  number = [name for name, _ in colmap.MODELS].index(model)
  cameras = images = struct.pack("<Q", len(rig))
  for i, (camera, values, pose, name) in enumerate(rows(rig, model)):
    cameras += struct.pack("<iiQQ", camera, number, *SIZE) + np.array(values).tobytes()
    images += struct.pack("<i7di", 9 - i, *pose, camera) + name.encode() + b"\0"
    images += struct.pack("<Q", i) + bytes(24 * i)
  folder.mkdir(parents=True)
  (folder / "cameras.bin").write_bytes(cameras)
  (folder / "images.bin").write_bytes(images)


@pytest.fixture(params=[write_text, write_binary], ids=["text", "binary"])
def model_dir(request, tmp_path) -> pathlib.Path:
  request.param(tmp_path / "sparse" / "0", truth("OPENCV"), "OPENCV")
  for i in range(4):
    write_image(tmp_path / "images" / f"view {i}.png")
  return tmp_path


@pytest.mark.parametrize("write", [write_text, write_binary])
@pytest.mark.parametrize("model", PARAMETERS)
def test_text_and_binary_give_the_rig_of_every_model(tmp_path, write, model: str):
  write(tmp_path / "sparse", truth(model), model)
  for i in range(4):
    write_image(tmp_path / "images" / f"view {i}.png")
  capture = colmap.read_capture(tmp_path)
  same_rig(capture.rig, truth(model))
  assert capture.rig.names == ("view 0", "view 1", "view 2", "view 3")
  assert (capture.rig.unit, capture.up) == ("", "cameras")
  assert capture.rig.sizes.tolist() == [list(SIZE)] * 4
  assert capture.frames.tolist() == [[0] * 4]
  assert capture.pictures[2].images == (tmp_path / "images" / "view 2.png",)
  assert capture.masks is None


@pytest.mark.parametrize("name", ["view {}.png.png", "view {}.jpg"])
def test_masks_beside_the_images_are_found(model_dir, name: str):
  for i in range(3):
    write_image(model_dir / "masks" / name.format(i), mode="L" if "png" in name else "RGB")
  assert "no mask" in refused(lambda: colmap.read_capture(model_dir), "masks", "view 3.png")
  mask = write_image(model_dir / "masks" / name.format(3), mode="L")
  masks = colmap.read_capture(model_dir).masks
  assert masks is not None
  assert masks[3].images == (mask,)
  write_image(mask, (3, 3), "L")
  assert "3 x 3 pixels" in refused(lambda: colmap.read_capture(model_dir), "masks", "view 3.png")


def test_the_rational_part_of_a_lens_is_refused(tmp_path):
  write_text(tmp_path / "sparse", truth("FULL_OPENCV"), "FULL_OPENCV")
  cameras = tmp_path / "sparse/cameras.txt"
  cameras.write_text(cameras.read_text().replace(" 0.0 0.0 0.0\n", " 0.1 0.0 0.0\n", 1))
  problem = refused(lambda: colmap.read_capture(tmp_path), "cameras.txt", "line 2")
  assert "FULL_OPENCV with k4 k5 k6 of 0.1 0.0 0.0; expected 0 0 0" in problem


@pytest.mark.parametrize("model", [name for name, count in colmap.MODELS if not count])
def test_other_camera_models_are_refused_by_name(model_dir, model: str):
  cameras = model_dir / "sparse/0/cameras.txt"
  if cameras.exists():
    cameras.write_text(cameras.read_text().replace("OPENCV", model, 1))
    name = "cameras.txt"
  else:
    cameras = cameras.with_suffix(".bin")
    data = bytearray(cameras.read_bytes())
    data[12] = [name for name, _ in colmap.MODELS].index(model)
    cameras.write_bytes(data)
    name = "cameras.bin"
  problem = refused(lambda: colmap.read_capture(model_dir), name, "")
  assert f"camera model '{model}'; expected one of SIMPLE_PINHOLE, PINHOLE" in problem


@pytest.mark.parametrize(
  ("file", "old", "new", "field", "problem"),
  [
    ("cameras", "30.0", "nan", "line 2", "not finite"),
    ("cameras", "30.0", "-30.0", "line 2", "fx = -30"),
    ("cameras", "30.0", "thirty", "line 2", "expected CAMERA_ID MODEL"),
    ("cameras", "24 18", "20000 20000", "line 2", "20000 x 20000 pixels"),
    ("cameras", "24 18", "25 18", "view 0.png", "the image is 24 x 18 pixels"),
    ("cameras", "OPENCV 24 18 30.0", "OPENCV 24 18", "line 2", "shape (7,)"),
    ("images", " 5 view 0", " 4 view 0", "view 0.png", "camera 4 is not in cameras.txt"),
    ("images", "view 0", "../view 0", "../view 0.png", "leads out of the folder"),
    ("images", "view 0.png", "/etc/passwd", "/etc/passwd", "is absolute"),
    ("images", "view 0", "view 9", "view 9.png", "no such image"),
    ("images", "view 1", "view 0", "view_0", "named twice"),
    ("images", " 5 view 0.png", "", "line 3", "expected IMAGE_ID QW"),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, file, old, new, field, problem):
  write_text(tmp_path / "sparse", truth("OPENCV"), "OPENCV")
  for i in range(4):
    write_image(tmp_path / "images" / f"view {i}.png")
  path = tmp_path / "sparse" / f"{file}.txt"
  assert old in path.read_text()
  path.write_text(path.read_text().replace(old, new, 1))
  with pytest.raises(colmap.InputError) as caught:
    colmap.read_capture(tmp_path)
  assert problem in caught.value.problem
  assert field.replace("view_0", "view 0") in caught.value.field


def test_poses_that_are_none_are_refused(tmp_path):
  write_text(tmp_path / "sparse", truth("PINHOLE"), "PINHOLE")
  path = tmp_path / "sparse" / "images.txt"
  lines = path.read_text().split("\n")
  words = lines[2].split()
  lines[2] = " ".join([words[0], "2.0", *words[2:]])
  path.write_text("\n".join(lines))
  assert "a quaternion of length" in refused(
    lambda: colmap.read_capture(tmp_path), "images.txt", "view 0.png"
  )


def test_any_cut_of_the_binary_files_is_refused(tmp_path):
  write_binary(tmp_path / "sparse", truth("RADIAL"), "RADIAL")
  for i in range(4):
    write_image(tmp_path / "images" / f"view {i}.png")
  for name in ("cameras.bin", "images.bin"):
    path = tmp_path / "sparse" / name
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
      path.write_bytes(whole[:length])
      assert "cut short" in refused(lambda: colmap.read_capture(tmp_path), "bin", "")
    path.write_bytes(struct.pack("<Q", 1 << 62) + whole[8:])
    assert "cut short" in refused(lambda: colmap.read_capture(tmp_path), name, "")
    path.write_bytes(whole)
  colmap.read_capture(tmp_path)


def test_missing_and_huge_files_are_refused(model_dir):
  write_huge_header(model_dir / "images" / "view 1.png")
  problem = refused(lambda: colmap.read_capture(model_dir), "view 1.png", "view 1.png")
  assert "too large to decode" in problem
  for file in (model_dir / "sparse/0").iterdir():
    file.unlink()
  assert "no sparse model" in refused(lambda: colmap.read_capture(model_dir), "", "")
