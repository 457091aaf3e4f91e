"""Start-up: seconds to the first scene on disk, with an empty and with a full compilation cache.

    python -m benchmarks.startup --config=configs/2dgs.py
    python -m benchmarks.startup --tiny                       a check on a CPU

Writes one built-in mouse as a scene folder first (not timed). Then `jaxsplat_mouse.main` fits it
twice, each time in a fresh process and a fresh workdir: `cold` with an empty compilation cache,
`warm` with the one that the first run left. The clock runs from the start of the process until the
scene stands in `dataset/`, where it appears whole. Other flags go to the command.

The seconds by part, one after the other:

  imports   until `config.json` is written: Python, the libraries, the device
  prepare   the scene is read and its hull carved (from the manifest)
  fit       the chunks of steps (from the manifest)
  output    from the saved fit to the scene in `dataset/`: renders, scores, PNG
  other     the rest

JAX's log gives the seconds of tracing, of lowering, and of compiling or loading from JAX's cache,
over the whole run. Threads do some of that beside other work, so these seconds are no part of the
sum; programs that `runtime/programs.py` loads from disk do not appear among them. Prints a table,
and writes JSON into $OUT where it is set.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.whole_job import ROOT, TINY, python_path
from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.runtime.devices import CACHE_VARIABLE

_POLL_SECONDS = 0.02
_LOGGED = re.compile(
  r"Finished (tracing|jaxpr|XLA)(?: to MLIR module conversion| compilation of)? "
  r"(?:jit\()?(.+?)\)?(?: for jit)? in ([\d.e-]+) sec"
)
_STEPS = {"tracing": "trace", "jaxpr": "lower", "XLA": "compile"}


def time_start(scene: pathlib.Path, folder: pathlib.Path, name: str, flags: Sequence[str]) -> dict:
  """Runs the command on one scene in a new process and measures its start.

  Args:
    scene: the scene's folder.
    folder: where the workdir, the log and the compilation cache go.
    name: of this run and of its workdir.
    flags: of the command.

  Returns:
    `seconds` until the scene was written, their parts, and what was compiled.

  Raises:
    SystemExit: the command failed or wrote no scene.
  """
  workdir, log = folder / name, folder / f"{name}.log"
  command = [sys.executable, "-m", "jaxsplat_mouse.main", *flags]
  environment = {**os.environ, "PYTHONPATH": python_path(), "JAX_LOG_COMPILES": "1"}
  environment.pop(CACHE_VARIABLE, None)
  environment["XDG_CACHE_HOME"] = str(folder / "cache")
  with log.open("wb") as file:
    began = time.time()
    process = subprocess.Popen(
      [*command, f"--config.data.input={scene}", f"--workdir={workdir}"],
      cwd=ROOT,
      env=environment,
      stdout=file,
      stderr=subprocess.STDOUT,
    )
    seen = watch(process, workdir, scene.name)
    status = process.wait()
  ended = time.time()
  text = log.read_text(errors="replace")
  if status or "done" not in seen:
    raise SystemExit(f"startup: the run ended with {status}\n{text[-4000:]}")
  record = scene_records.latest_records(workdir / "dataset")[scene.name]
  moments = {key: value - began for key, value in seen.items()}
  return dict(
    run=name,
    seconds=moments["done"],
    **parts(moments, record.seconds),
    process_seconds=ended - began,
    **compiled(text),
  )


def watch(process: subprocess.Popen, workdir: pathlib.Path, scene: str) -> dict[str, float]:
  """Returns when a run's first files appeared, in seconds since 1970: `config`, `fit`, `done`."""
  files = {
    "config": workdir / "config.json",
    "fit": workdir / "fits" / scene / "gaussians.ply",
    "done": workdir / "dataset" / scene,
  }
  seen: dict[str, float] = {}
  while len(seen) < len(files):
    over = process.poll() is not None
    for name, path in files.items():
      if name not in seen and path.exists():
        seen[name] = time.time()
    if over:
      break
    time.sleep(_POLL_SECONDS)
  return seen


def parts(moments: dict[str, float], recorded: dict[str, float]) -> dict[str, float]:
  """Returns the consecutive parts of the time to the first scene.

  Args:
    moments: seconds from the start until `config`, `fit` and `done`.
    recorded: `prepare` and `fit` of the manifest.
  """
  result = {
    "imports": moments["config"],
    "prepare": recorded["prepare"],
    "fit": recorded["fit"],
    "output": moments["done"] - moments["fit"],
  }
  return {**result, "other": moments["done"] - sum(result.values())}


def compiled(log: str) -> dict[str, Any]:
  """Returns seconds by step, the number of programs and the slowest programs, from JAX's log."""
  steps = dict.fromkeys(_STEPS.values(), 0.0)
  programs: dict[str, float] = {}
  count = 0
  for step, name, seconds in _LOGGED.findall(log):
    steps[_STEPS[step]] += float(seconds)
    programs[name] = programs.get(name, 0.0) + float(seconds)
    count += step == "XLA"
  slowest = sorted(programs.items(), key=lambda item: -item[1])[:8]
  return {**steps, "programs": count, "slowest": {name: round(s, 2) for name, s in slowest}}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
  for name in rows[0]:
    cells = [row[name] for row in rows]
    if isinstance(cells[0], dict):
      for row in rows:
        text = ", ".join(f"{key} {value}" for key, value in row[name].items())
        print(f"{name} {row['run']}: {text}")
      continue
    texts = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print(f"{name:16}" + "".join(f"{text:>10}" for text in texts))


def write_mouse(folder: pathlib.Path, size: int) -> pathlib.Path:
  """Writes one scene folder, in a process of its own that ends with what it has compiled."""
  code = "import pathlib, sys; from benchmarks import whole_job; "
  code += "whole_job.write_mice(pathlib.Path(sys.argv[1]), 1, int(sys.argv[2]))"
  environment = {**os.environ, "PYTHONPATH": python_path(), "JAX_PLATFORMS": "cpu"}
  subprocess.run(
    [sys.executable, "-c", code, str(folder), str(size)], cwd=ROOT, env=environment, check=True
  )
  return folder / "mouse_00000"


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/2dgs.py")
  parser.add_argument("--image_size", type=int, default=512)
  parser.add_argument("--tiny", action="store_true", help="a few pixels and steps")
  options, passed = parser.parse_known_args(argv)
  flags = [f"--config={options.config}", *(TINY if options.tiny else ()), *passed]
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    scene = write_mouse(folder / "mice", 36 if options.tiny else options.image_size)
    rows = [time_start(scene, folder, name, flags) for name in ("cold", "warm")]
  print_table(rows)
  if out := os.environ.get("OUT"):
    result = dict(argv=sys.argv[1:], rows=rows)
    pathlib.Path(out, "startup.json").write_text(json.dumps(result, indent=1) + "\n")
  return 0


if __name__ == "__main__":
  sys.exit(main())
