"""Measures the memory of `prepare` over a long recording: it must not grow with the moments.

    python -m benchmarks.prepare_memory --moments=3000

Expected: 845 MiB after 300 moments, 851 MiB after 3,000.

Five synthetic cameras of 144 x 120 pixels behind lenses, h264 videos of photographs and masks.
Prints a table and one line of JSON: resident memory after every tenth of the recording.
"""

from __future__ import annotations

import json
import pathlib
import resource
import tempfile
import time

import numpy as np
from absl import app, flags

from jaxsplat_mouse.capture import preparation
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from tests.capture import recording_fixtures as fixtures
from tests.io.file_fixtures import write_video

FLAGS = flags.FLAGS
_PERIOD = 8  # frames after which the animal's walk repeats


def make_recording(folder: pathlib.Path, moments: int) -> Capture:
  """Writes videos of the spheres, `moments` frames for each of five cameras."""
  rig = fixtures.make_rig()
  streams: dict[str, list[Stream]] = {"photo": [], "mask": []}
  for view, name in enumerate(rig.names):
    shots = [fixtures.render(rig, view, fixtures.walk(i % 3), 2) for i in range(_PERIOD)]
    for kind, pictures in zip(streams, zip(*shots, strict=True), strict=True):
      path = folder / kind / name / "0.mp4"
      write_video(path, [pictures[i % _PERIOD] for i in range(moments)])
      streams[kind].append(Stream(video=path))
  return fixtures.make_capture(folder, rig, streams["photo"], streams["mask"], moments)


def resident() -> float:
  """Returns resident memory in MiB; its peak where the system does not report the present."""
  try:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
  except OSError:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def watch(moments: int) -> list[dict[str, float]]:
  """Prepares a recording; returns memory after every tenth of it."""
  rows: list[dict[str, float]] = []
  started, write, done = time.monotonic(), preparation.write_scene_folder, 0

  def counted(*args: object, **kwargs: object) -> object:
    nonlocal done
    done += 1
    if done % max(moments // 10, 1) == 0:
      seconds = time.monotonic() - started
      rows.append({"moments": done, "mib": round(resident(), 1), "seconds": round(seconds, 1)})
      print(
        f"{done:8d} moments {rows[-1]['mib']:8.1f} MiB {rows[-1]['seconds']:8.1f} s", flush=True
      )
    return write(*args, **kwargs)

  with tempfile.TemporaryDirectory() as folder:
    capture = make_recording(pathlib.Path(folder, "raw"), moments)
    options = PrepareOptions(
      format="dannce", input=capture.path, output=pathlib.Path(folder, "scenes"), frames=""
    )
    preparation.write_scene_folder = counted
    started = time.monotonic()
    if preparation.prepare_recording(options, capture) != 0:
      raise SystemExit("prepare failed")
  return rows


def main(argv: list[str]) -> None:
  del argv
  rows = watch(FLAGS.moments)
  first, last = rows[len(rows) // 5], rows[-1]
  grown = round(last["mib"] - first["mib"], 1)
  count = int(np.subtract(last["moments"], first["moments"]))
  print(json.dumps({"grown_mib": grown, "over_moments": count, "rows": rows}))


if __name__ == "__main__":
  flags.DEFINE_integer("moments", 2000, "Length of the recording.", lower_bound=10)
  app.run(main)
