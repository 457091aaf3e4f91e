"""A recording with a camera out of step: found, applied, kept on resume; or only named."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from jaxsplat_mouse.capture import preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.io import images
from tests.capture import recording_fixtures as fixtures

pytest.importorskip("cv2")
FRAMES, LATE = 14, 3


def walk(frame: int) -> tuple[float, float, float]:
  """To and fro, so that time and place are not the same."""
  return (10 * float(np.sin(0.35 * frame)), 9 * float(np.sin(0.5 * frame + 1)), 0.0)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Five cameras, of which one shows the frame before."""
  folder, rig = tmp_path_factory.mktemp("raw") / "walk", fixtures.make_rig()
  streams: dict[str, list[Stream]] = {"photo": [], "mask": []}
  for view, name in enumerate(rig.names):
    files: dict[str, list[pathlib.Path]] = {"photo": [], "mask": []}
    for frame in range(FRAMES):
      shift = walk(frame - (view == LATE))
      for kind, image in zip(files, fixtures.render(rig, view, shift, 2), strict=True):
        path = folder / kind / name / f"{frame:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(image))
        files[kind].append(path)
    for kind, paths in files.items():
      streams[kind].append(Stream(images=tuple(paths)))
  return fixtures.make_capture(folder, rig, streams["photo"], streams["mask"], FRAMES)


def prepare(capture: Capture, output: pathlib.Path, **more: object) -> str:
  """What was printed."""
  console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
  chosen = {"frames": "4", "matte": "off", "refine": "off", **more}
  options = PrepareOptions(format="dannce", input=capture.path, output=output, **chosen)  # type: ignore[arg-type]
  assert preparation.prepare_recording(options, capture, console) == 0
  return console.export_text()


def frames_of(output: pathlib.Path, moment: int) -> list[int]:
  cameras = json.loads((output / f"walk_{10 * moment + 1:04d}" / "opencv_cameras.json").read_text())
  return [frame["frame"] for frame in cameras["frames"]]


def test_a_late_camera_is_put_into_step_and_stays(late: Capture, tmp_path: pathlib.Path) -> None:
  printed = prepare(late, tmp_path)
  assert "sync: applied --offsets=Camera4:+1; held-out silhouettes contradict" in printed, printed
  assert frames_of(tmp_path, 4) == [4, 4, 4, 5, 4]
  found = json.loads((tmp_path / "recording.json").read_text())["calibration"]["synchronization"]
  assert found["offsets"] == {"Camera4": 1} and found["applied"]
  assert abs(found["frames_late"]["Camera4"] - 1) < 0.2
  printed = prepare(late, tmp_path, frames="4:6")
  assert "sync: offsets of the earlier run: Camera4:+1" in printed
  assert frames_of(tmp_path, 5) == [5, 5, 5, 6, 5]


def test_a_report_changes_nothing(late: Capture, tmp_path: pathlib.Path) -> None:
  printed = prepare(late, tmp_path, sync="report")
  assert "warning: sync: not applied, try --offsets=Camera4:+1" in printed, printed
  assert frames_of(tmp_path, 4) == [4] * 5
