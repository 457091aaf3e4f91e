"""Several GPUs of one host: W1 iterations per second on 1, 2, 4, ... of them, the same work each.

    python -m benchmarks.scaling --model=3d --scenes=16

Expected on 1, 2 and 4 H100: 2,131, 4,267 and 8,516 scene iterations a second (4.00 times).

Every device has its own scenes and gets its steps in one call by its own thread, as in a run, so
the benchmark measures how far the host keeps all devices busy. Prints a table and, if $OUT is set,
writes scaling.json into it.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.workload import Setting, iterate, make_targets, parameters, report, show, views


def measure(setting: Setting, steps: int, counts: list[int], rounds: int = 3) -> list[dict]:
  """Times the workload on several numbers of devices.

  Args:
    setting: the workload of each device.
    steps: iterations of one call.
    counts: numbers of devices, the first of which is the base of the speed-up.
    rounds: timed calls; their median counts.

  Returns:
    rows with `devices`, `scene_iterations_per_s` and `speed_up`.
  """
  gaussians, ring = parameters(setting), views(setting)
  start = (gaussians, optax.adam(1e-4).init(gaussians))
  problem = jax.tree.map(np.asarray, (start, ring, make_targets(gaussians, ring, setting)))
  run = iterate(setting, steps)
  rows: list[dict[str, Any]] = []
  for count in counts:
    placed = [jax.device_put(problem, device) for device in jax.local_devices()[:count]]
    go = lambda state, one: jax.block_until_ready(run(state, *one[1:])[0])
    seconds = []
    with ThreadPoolExecutor(count) as threads:  # kept between rounds, so that no start is timed
      states = list(threads.map(go, [one[0] for one in placed], placed))  # compiles
      for _ in range(rounds):
        begin = time.perf_counter()
        states = list(threads.map(go, states, placed))
        seconds.append(time.perf_counter() - begin)
    rate = count * setting.scenes * steps / float(np.median(seconds))
    first = rows[0]["scene_iterations_per_s"] if rows else rate
    rows.append(dict(devices=count, scene_iterations_per_s=rate, speed_up=rate / first))
    show(rows[-1])
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", default="3d", choices=("3d", "2d"))
  parser.add_argument("--scenes", type=int, default=16, help="per device")
  parser.add_argument("--steps", type=int, default=50)
  args = parser.parse_args()
  total = jax.local_device_count()
  counts = [n for n in (1, 2, 4, 8) if n <= total]
  setting = Setting(flat=args.model == "2d", scenes=args.scenes)
  report("scaling", measure(setting, args.steps, counts))


if __name__ == "__main__":
  main()
