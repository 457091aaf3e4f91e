"""NeRF transforms.json: OpenGL axes, intrinsics for all or for each, masks, times, broken files."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.capture.formats import transforms
from jaxsplat_mouse.capture.rig import Rig
from tests.capture.formats.format_fixtures import SIZE, make_rig, same_rig, write_image
from tests.io.file_fixtures import refused, write_huge_header

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def truth() -> Rig:
  rig = make_rig()
  matrices = rig.matrices.copy()
  matrices[:, 0, 1] = 0
  return dataclasses.replace(rig, matrices=matrices, unit="")


def as_json() -> dict:
  rig = truth()
  frames = []
  for i, (k, pose, d) in enumerate(
    zip(rig.matrices, rig.world_to_camera, rig.distortion, strict=True)
  ):
    frames.append(
      {
        "file_path": f"./images/{i:03d}.png",
        "transform_matrix": (np.linalg.inv(pose) @ FLIP).tolist(),
        **dict(
          zip(("fl_x", "fl_y", "cx", "cy"), (k[0, 0], k[1, 1], k[0, 2], k[1, 2]), strict=True)
        ),
        **dict(zip(("k1", "k2", "p1", "p2", "k3"), d, strict=True)),
      }
    )
  return {"camera_model": "OPENCV", "w": SIZE[0], "h": SIZE[1], "frames": frames}


def write(folder: pathlib.Path, data: dict) -> pathlib.Path:
  (folder / "transforms.json").write_text(json.dumps(data))
  for i in range(4):
    if not (folder / f"images/{i:03d}.png").exists():
      write_image(folder / f"images/{i:03d}.png")
  return folder


def test_intrinsics_of_each_frame(tmp_path):
  capture = transforms.read_capture(write(tmp_path, as_json()))
  same_rig(capture.rig, truth())
  assert capture.rig.names == ("000", "001", "002", "003")
  assert (capture.rig.unit, capture.up) == ("", "cameras")
  assert capture.rig.sizes.tolist() == [list(SIZE)] * 4
  assert capture.frames.tolist() == [[0] * 4]
  assert capture.masks is None
  assert capture.pictures[1].images == (tmp_path / "images/001.png",)
  assert len(transforms.read_capture(tmp_path / "transforms.json").rig) == 4


def test_blender_gives_an_angle_and_no_suffix(tmp_path):
  data = as_json()
  frames = [
    {"file_path": f["file_path"][:-4], "transform_matrix": f["transform_matrix"]}
    for f in data["frames"]
  ]
  write(tmp_path, {"camera_angle_x": 0.8, "frames": frames})
  rig = transforms.read_capture(tmp_path).rig
  focal = 12 / np.tan(0.4)
  assert np.allclose(rig.matrices, [[focal, 0, 12], [0, focal, 9], [0, 0, 1]])
  assert not rig.distortion.any()


def test_values_for_all_frames_and_exceptions(tmp_path):
  data = as_json()
  for frame in data["frames"][1:]:
    for key in ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2", "k3"):
      del frame[key]
  write(tmp_path, {**data, "fl_x": 50.0, "cx": 11.0, "cy": 10.0, "k1": 0.1})
  rig = transforms.read_capture(tmp_path).rig
  assert np.allclose(rig.matrices[0], truth().matrices[0])
  assert np.allclose(rig.matrices[1:], [[50, 0, 11], [0, 50, 10], [0, 0, 1]])
  assert rig.distortion[1].tolist() == [0.1, 0, 0, 0, 0]


def test_masks_are_for_all_frames_or_none(tmp_path):
  data = as_json()
  for i, frame in enumerate(data["frames"][:3]):
    frame["mask_path"] = f"masks/{i}.png"
    write_image(tmp_path / frame["mask_path"], mode="L")
  write(tmp_path, data)
  call = lambda: transforms.read_capture(tmp_path)
  assert "for every frame or for none" in refused(call, "transforms.json", "frames[3].mask_path")
  data["frames"][3]["mask_path"] = "masks/0.png"
  write(tmp_path, data)
  masks = call().masks
  assert masks is not None
  assert masks[2].images == (tmp_path / "masks/2.png",)
  write_image(tmp_path / "masks/2.png", (5, 5), "L")
  assert "5 x 5" in refused(call, "transforms.json", "frames[2].mask_path")


def test_times_make_moments_of_fixed_cameras(tmp_path):
  data = as_json()
  data["frames"] = [
    {**frame, "file_path": f"images/{time}_{i}.png", "time": time}
    for i, frame in enumerate(data["frames"])
    for time in (0.5, 0.0, 1.0)
    if (i, time) != (2, 0.5)
  ]
  for frame in data["frames"]:
    write_image(tmp_path / frame["file_path"])
  capture = transforms.read_capture(write(tmp_path, data))
  same_rig(capture.rig, truth())
  assert capture.frames.tolist() == [[0] * 4, [1, 1, -1, 1], [2, 2, 1, 2]]
  assert [f.name for f in capture.pictures[2].images] == ["0.0_2.png", "1.0_2.png"]


def test_a_moving_camera_is_refused(tmp_path):
  data = as_json()
  for i, frame in enumerate(data["frames"]):
    frame["time"] = i / 3
  write(tmp_path, data)
  problem = refused(lambda: transforms.read_capture(tmp_path), "transforms.json", "frames.time")
  assert "no time is common to all 4 cameras" in problem


def spoil(data: dict, folder: pathlib.Path, case: str) -> None:
  first = data["frames"][0]
  matrix = np.array(first["transform_matrix"])
  match case:
    case "nan":
      first["transform_matrix"][0][0] = float("nan")
    case "mirrored":
      first["transform_matrix"] = (matrix @ np.diag([1, 1, -1, 1])).tolist()
    case "scaled":
      first["transform_matrix"] = (matrix @ np.diag([2, 2, 2, 1])).tolist()
    case "transposed":
      first["transform_matrix"] = matrix.T.tolist()
    case "shape":
      first["transform_matrix"] = matrix[:3].tolist()
    case "ragged":
      first["transform_matrix"][1].pop()
    case "opencv":
      for frame in data["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ FLIP).tolist()
    case "focal":
      first["fl_x"] = 0
    case "no focal":
      del first["fl_x"]
    case "angle":
      del first["fl_x"]
      first["camera_angle_x"] = 4
    case "fisheye":
      data["camera_model"] = "OPENCV_FISHEYE"
    case "k4":
      first["k4"] = 0.1
    case "text":
      first["cx"] = "12"
    case "size":
      data["w"] = 100
    case "outside":
      write_image(folder.parent / "outside.png")
      first["file_path"] = "../outside.png"
    case "absolute":
      first["file_path"] = str(write_image(folder / "images/x.png"))
    case "link":
      (folder / "images/link").symlink_to(write_image(folder.parent / "outside.png").parent)
      first["file_path"] = "images/link/outside.png"
    case "missing":
      first["file_path"] = "images/999.png"
    case "no path":
      del first["file_path"]
    case "number":
      first["file_path"] = 3
    case "huge":
      write_huge_header(folder / "images/000.png")
    case "broken":
      (folder / "images/000.png").write_bytes(b"\x89PNG\r\n")
    case "twice":
      data["frames"][1] = first
    case "no frames":
      data["frames"] = []
    case "flat":
      data["frames"] = [3]


@pytest.mark.parametrize(
  ("case", "field", "problem"),
  [
    ("nan", "frames[0].transform_matrix", "not finite"),
    ("mirrored", "frames[0].transform_matrix", "mirrored, determinant -1.000"),
    ("scaled", "frames[0].transform_matrix", "a scale of 2"),
    ("transposed", "frames[0].transform_matrix", "the matrix is transposed"),
    ("shape", "frames[0].transform_matrix", "shape (3, 4); expected 4 x 4 numbers"),
    ("ragged", "frames[0].transform_matrix", "expected 4 x 4 numbers"),
    ("opencv", "calibration", "4 of 4 cameras have their backs"),
    ("focal", "frames[0] (fl_x", "fx = 0"),
    ("no focal", "frames[0].camera_angle_x", "missing"),
    ("angle", "frames[0].camera_angle_x", "between 0 and pi"),
    ("fisheye", "frames[0].camera_model", "OPENCV_FISHEYE"),
    ("k4", "frames[0].k4", "not 0"),
    ("text", "frames[0].cx", "expected one numbers"),
    ("size", "frames[0].file_path", "24 x 18 pixels, the calibration is for 100 x 18"),
    ("outside", "frames[0].file_path", "leads out of the folder"),
    ("absolute", "frames[0].file_path", "is absolute"),
    ("link", "frames[0].file_path", "leads out of the folder"),
    ("missing", "frames[0].file_path", "no such image"),
    ("no path", "frames[0].file_path", "missing"),
    ("number", "frames[0].file_path", "expected a path inside"),
    ("huge", "frames[0].file_path", "too large to decode"),
    ("broken", "frames[0].file_path", "not an image"),
    ("twice", "", "the same pose as"),
    ("no frames", "frames", "missing or empty"),
    ("flat", "frames[0]", "expected an object"),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, case: str, field: str, problem: str):
  folder = tmp_path / "capture"
  (folder / "images").mkdir(parents=True)
  data = as_json()
  spoil(data, folder, case)
  write(folder, data)
  if case == "twice":
    assert "named twice" in refused(lambda: transforms.read_capture(folder), "transforms", "000")
    write_image(folder / "images/copy.png")
    data["frames"][1] = {**data["frames"][0], "file_path": "images/copy.png"}
    write(folder, data)
  assert problem in refused(lambda: transforms.read_capture(folder), "", field)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"frames": ' + "[" * 100_000, "\udcff"])
def test_what_is_no_json_object_is_refused(tmp_path, text: str):
  (tmp_path / "transforms.json").write_bytes(text.encode("utf-8", "surrogateescape"))
  refused(lambda: transforms.read_capture(tmp_path), "transforms.json", "")
