"""The whole job from images on disk: scenes a minute, time by stage, memory, and use of the GPU.

    python -m benchmarks.whole_job --scenes=256
    python -m benchmarks.whole_job --scenes=3 --tiny          a check on a CPU

Expected of the first, on one H100 and 16 cores: 187 s, 143 scenes a minute after the first batch,
1,600 scenes in 12.5 minutes, 12.2 GB of host memory at most.

First writes N different built-in mice as scene folders of PNG, in one CPU process per core; this
time does not count. Then runs `jaxsplat_mouse.main` on them in another process and watches it from
outside. The steady rate leaves out the first batch, which compiles; the projection to 1,600 scenes
is the time of the first batch, and the rest at the steady rate. Prints a table and the time by
stage and, if $OUT is set, writes whole_job.json into it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.report import statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET_SCENES = 1600
TINY = (
  "--config.hull.resolution=32",
  "--config.fit.num_gaussians=128",
  "--config.fit.iterations=20",
  "--config.fit.relocate_every=5",
  "--config.fit.resolutions=(1,)",
  "--config.fit.stages=()",
  "--config.fit.geometry_from=0.0",
  "--config.render.num_views=4",
  "--config.render.image_size=32",
  "--config.checkpoint.steps=5",
)
_POLL_SECONDS = 0.5


def python_path() -> str:
  """Returns PYTHONPATH with the repository in front, for commands that a benchmark starts."""
  return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def write_mice(
  folder: pathlib.Path, count: int, image_size: int, first: int = 0, step: int = 1
) -> None:
  """Writes scene folders `mouse_00000` and so on; existing ones stay as they are.

  Args:
    folder: that contains them.
    count: number of mice.
    image_size: width of the photographs, pixels.
    first: the first mouse to write.
    step: from one mouse to the next.
  """
  from jaxsplat_mouse.dataset import camera_file
  from jaxsplat_mouse.io import images
  from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene

  cameras = input_cameras(image_size=image_size)
  for seed in range(first, count, step):
    scene = folder / f"mouse_{seed:05d}"
    if (scene / camera_file.CAMERAS_FILE).is_file():
      continue
    # One ray a pixel inside, nine at outlines: a third of the usual rays.
    views = make_scene(seed, cameras, samples=1, edge_samples=3)
    rgba = np.concatenate([views.images, views.alphas[..., None]], -1)
    names = [f"images/cam_{i:03d}.png" for i in range(len(rgba))]
    (scene / "images").mkdir(parents=True, exist_ok=True)
    for name, view in zip(names, rgba, strict=True):
      (scene / name).write_bytes(images.encode_png((view * 255 + 0.5).astype(np.uint8)))
    camera_file.write_scene_cameras(scene, cameras, names)  # last: it marks the scene as complete


def write_mice_in_parallel(folder: pathlib.Path, count: int, image_size: int) -> None:
  """Calls `write_mice` in one process per core, all on the CPU: the GPU's memory stays free.

  Args:
    folder: that contains the scenes.
    count: number of mice.
    image_size: width of the photographs, pixels.
  """
  processes = max(1, min(os.cpu_count() or 1, count))
  command = [sys.executable, "-m", "benchmarks.whole_job", f"--only_write={folder}"]
  command += [f"--scenes={count}", f"--image_size={image_size}"]
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "1"}
  started = [
    subprocess.Popen([*command, f"--part={i}/{processes}"], cwd=ROOT, env=env)
    for i in range(processes)
  ]
  statuses = [process.wait() for process in started]
  if any(statuses):
    raise RuntimeError(f"writing the mice ended with {statuses}")


class Watch(threading.Thread):
  """Measures the peak memory of a process and the use of the GPU from outside.

  Attributes:
    peak_rss: largest resident memory so far, bytes.
    gpu: one tuple a look: seconds since 1970, % busy, MiB in use.
  """

  def __init__(self, pid: int):
    super().__init__(daemon=True)
    self._pid, self._over = pid, threading.Event()
    self._smi = shutil.which("nvidia-smi")
    self.peak_rss = 0
    self.gpu: list[tuple[float, float, float]] = []

  def run(self) -> None:
    while not self._over.wait(_POLL_SECONDS):
      self._look()

  def _look(self) -> None:
    try:
      text = pathlib.Path(f"/proc/{self._pid}/status").read_text()
      peak = next(line for line in text.splitlines() if line.startswith("VmHWM"))
      self.peak_rss = max(self.peak_rss, 1024 * int(peak.split()[1]))
    except (OSError, StopIteration):  # not Linux, or the process has ended
      pass
    if self._smi:
      query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
      if os.environ.get("CUDA_VISIBLE_DEVICES"):
        query.append(f"--id={os.environ['CUDA_VISIBLE_DEVICES']}")
      found = subprocess.run([self._smi, *query], capture_output=True, text=True)
      rows = [line.split(",") for line in found.stdout.splitlines() if "," in line]
      if rows and found.returncode == 0:
        busy, used = np.array(rows, np.float64).T
        self.gpu.append((time.time(), float(busy.mean()), float(used.sum())))

  def stop(self) -> None:
    self._over.set()
    self.join()


def run_job(arguments: Sequence[str]) -> tuple[Watch, float, float, int]:
  """Runs `jaxsplat_mouse.main`.

  Args:
    arguments: flags of the command.

  Returns:
    what was watched, the start in seconds since 1970, the duration in seconds, the exit status.
  """
  began = time.time()
  command = [sys.executable, "-m", "jaxsplat_mouse.main", *arguments]
  process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": python_path()})
  watch = Watch(process.pid)
  watch.start()
  status = process.wait()
  seconds = time.time() - began
  watch.stop()
  return watch, began, seconds, status


def measure(
  workdir: pathlib.Path, watch: Watch, began: float, seconds: float, status: int
) -> dict[str, Any]:
  """Returns the figures of a finished run.

  Args:
    workdir: of the run.
    watch, began, seconds, status: as `run_job` returns them.
  """
  records = scene_records.latest_records(workdir / "dataset")
  ends = sorted(
    filter(None, (statistics.parse_time(r.extra["finished"]) for r in records.values()))
  )
  batches = [len(line) for line in _batch_sizes(workdir)]
  first = min(batches[0] if batches else 1, len(ends))
  result: dict[str, Any] = {
    "status": status,
    "scenes": len(records),
    **statistics.count_statuses(records),
    "seconds": seconds,
    "scenes_per_minute": 60 * len(ends) / seconds,
    "first_batch_scenes": first,
    "first_batch_done_seconds": ends[first - 1] - began if ends else None,
    "stage_seconds": statistics.mean_seconds(records),
    "device_thread_seconds_a_scene": device_thread_seconds(workdir),
    "peak_rss_bytes": watch.peak_rss or None,
    "dataset_bytes": sum(r.extra.get("bytes", 0) for r in records.values()),
  }
  if len(ends) > first and ends[-1] > ends[first - 1]:
    steady = (len(ends) - first) / (ends[-1] - ends[first - 1])
    result["steady_scenes_per_minute"] = 60 * steady
    rest = (TARGET_SCENES - first) / steady
    result["projected_minutes_for_1600"] = (ends[first - 1] - began + rest) / 60
  return result | (_gpu_figures(watch, ends[first - 1 :]) if watch.gpu else {})


def _gpu_figures(watch: Watch, steady_ends: Sequence[float]) -> dict[str, Any]:
  """Returns the use of the GPU: over the whole run, and after the end of the first batch."""
  times, busy, used = np.array(watch.gpu).T
  steady = times > 0
  if steady_ends:
    steady = (times >= steady_ends[0]) & (times <= steady_ends[-1])
  return {
    "gpu_busy_percent": float(busy.mean()),
    "gpu_busy_percent_steady": float(busy[steady].mean()) if any(steady) else None,
    "gpu_peak_bytes": float(used.max()) * 2**20,
  }


def device_thread_seconds(workdir: pathlib.Path) -> dict[str, float]:
  """Returns the seconds a scene of each stage of the device thread, without the first batch."""
  rows = [json.loads(line) for line in (workdir / "timing.jsonl").read_text().splitlines()]
  rows = rows[1:] or rows
  scenes = sum(row["scenes"] for row in rows)
  names = dict.fromkeys(name for row in rows for name in row["seconds"])
  return {name: sum(row["seconds"].get(name, 0.0) for row in rows) / scenes for name in names}


def _batch_sizes(workdir: pathlib.Path) -> list[set[str]]:
  """Returns the scenes of each batch in their order, from the lines of `metrics.jsonl`."""
  groups: list[set[str]] = []
  last = None
  for line in (workdir / "metrics.jsonl").read_text().splitlines():
    row = json.loads(line)
    if row.get("iteration") is None:
      continue
    if last is None or row["iteration"] < last:
      groups.append(set())
    last = row["iteration"]
    groups[-1].add(row["scene"])
  return groups


def print_table(result: dict[str, Any]) -> None:
  for name, value in result.items():
    if name == "device_thread_seconds_a_scene":
      print_shares(value)
      continue
    if isinstance(value, dict):
      value = ", ".join(f"{k} {v:.3f}" for k, v in value.items())
    elif name.endswith("_bytes") and value is not None:
      value = f"{value / 1e9:.3f} GB"
    elif isinstance(value, float):
      value = f"{value:.2f}"
    print(f"{name.replace('_', ' '):28} {value}")


def print_shares(seconds: dict[str, float]) -> None:
  total = sum(seconds.values())
  print("seconds a scene of the thread that drives the GPU, after the first batch:")
  for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
    print(f"  {name:26} {value:.4f} {100 * value / total:5.1f} %")
  print(f"  {'all':26} {total:.4f}")


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--scenes", type=int, default=256)
  parser.add_argument("--config", default="configs/2dgs.py")
  parser.add_argument("--folder", help="keeps mice and workdir; by default a temporary folder")
  parser.add_argument("--image_size", type=int, default=512)
  parser.add_argument("--tiny", action="store_true", help="a few pixels and steps")
  parser.add_argument("--only_write", metavar="FOLDER", help="write mice there and end")
  parser.add_argument("--part", default="0/1", help="I/N: with --only_write, every N-th mouse")
  options, passed = parser.parse_known_args(argv)
  size = 36 if options.tiny else options.image_size
  if options.only_write:
    first, step = map(int, options.part.split("/"))
    write_mice(pathlib.Path(options.only_write), options.scenes, size, first, step)
    return 0
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(options.folder or temporary).absolute()
    mice, workdir = folder / f"mice_{size}", folder / "workdir"
    began = time.time()
    write_mice_in_parallel(mice, options.scenes, size)
    written = time.time() - began
    flags = [f"--config={options.config}", f"--config.data.input={mice}", f"--workdir={workdir}"]
    run = run_job([*flags, *(TINY if options.tiny else ()), *passed])
    result = {"write_inputs_seconds": written, **measure(workdir, *run)}
  print_table(result)
  if out := os.environ.get("OUT"):
    pathlib.Path(out, "whole_job.json").write_text(json.dumps(result, indent=2) + "\n")
  return run[-1]


if __name__ == "__main__":
  sys.exit(main())
