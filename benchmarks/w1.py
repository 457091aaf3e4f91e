"""W1 on a GPU: whole iterations, every stage by itself, kernels by name, correctness.

    python -m benchmarks.w1 --time --model=3d --batch=1,4,16,64
    python -m benchmarks.w1 --check

The workload is in `workload.py`. Prints a table, and JSON into $OUT.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.workload import (
  Setting,
  batch_loss,
  iterate,
  make_targets,
  milliseconds,
  parameters,
  report,
  show,
  views,
)
from jaxsplat_mouse import cameras as cam
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.ops.photometric.api import photometric
from jaxsplat_mouse.ops.rasterize import api, base, pallas, pallas_binning
from jaxsplat_mouse.projection import project


def time_whole(setting: Setting, steps: int) -> dict[str, float]:
  """A whole iteration inside a scan of `steps`."""
  gaussians, ring = parameters(setting), views(setting)
  targets = make_targets(gaussians, ring, setting)
  state = (gaussians, optax.adam(1e-4).init(gaussians))
  start = time.perf_counter()
  run = iterate(setting, steps).lower(state, ring, targets).compile()
  compile_s = time.perf_counter() - start
  times = []
  for _ in range(4):
    start = time.perf_counter()
    state, overflow = run(state, ring, targets)
    jax.block_until_ready(state)
    times.append((time.perf_counter() - start) / steps * 1e3)
  if int(overflow):
    raise SystemExit(f"w1: {int(overflow)} intersections of an image did not fit; raise --entries")
  memory = run.memory_analysis()
  whole = float(np.median(times[1:]))
  peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
  return dict(
    whole_ms=whole,
    per_scene_ms=whole / setting.scenes,
    compile_s=compile_s,
    temporary_gb=memory.temp_size_in_bytes / 1e9,
    argument_gb=memory.argument_size_in_bytes / 1e9,
    peak_gb=peak / 1e9,
  )


def profile(setting: Setting, steps: int, top: int = 40) -> dict[str, float]:
  """Measures the GPU kernels that take the longest.

  Args:
    setting: what to run.
    steps: iterations.
    top: how many kernels to return.

  Returns:
    milliseconds per iteration, by name, after those of all kernels together.
  """
  gaussians, ring = parameters(setting), views(setting)
  targets = make_targets(gaussians, ring, setting)
  state = (gaussians, optax.adam(1e-4).init(gaussians))
  run = iterate(setting, steps)
  state, _ = jax.block_until_ready(run(state, ring, targets))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(run(state, ring, targets))
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    total: collections.Counter[str] = collections.Counter()
    for plane in planes:
      for line in plane.lines if plane.name.startswith("/device:GPU") else ():
        if line.name.startswith("Stream"):
          for event in line.events:
            total[event.name] += event.duration_ns / steps / 1e6
  return {"all_kernels": sum(total.values()), **dict(total.most_common(top))}


def bundles(setting: Setting) -> Callable[..., base.Bundle]:
  """Returns the function of all scenes and cameras that makes the kernels' input, flat."""

  def one(gaussians: Gaussians, camera: cam.Cameras) -> base.Bundle:
    return api.to_bundle(project(gaussians, camera), setting.options)

  def run(gaussians: Gaussians, ring: cam.Cameras) -> base.Bundle:
    each = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    bundle = each(gaussians, ring)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), bundle)

  return run


def time_stages(setting: Setting, repeat: int) -> dict[str, float]:
  """Each stage of the Pallas path by itself, whole batch, ms."""
  options = setting.options
  gaussians, ring = parameters(setting), views(setting)
  clock = functools.partial(milliseconds, repeat=repeat)
  to_bundles = jax.jit(bundles(setting))
  result = {"projection": clock(to_bundles, gaussians, ring)}
  bundle = to_bundles(gaussians, ring)

  def pull(gaussians: Gaussians, features: jax.Array) -> Gaussians:
    run = lambda g: bundles(setting)(g, ring).features
    return jax.vjp(run, gaussians)[1](features)[0]

  result["projection_and_backward"] = clock(jax.jit(pull), gaussians, bundle.features)
  bin_ = jax.jit(functools.partial(pallas_binning.bin_into_slots, options=options))
  result["binning"] = clock(bin_, bundle)
  lists = bin_(bundle)
  compose = jax.jit(functools.partial(pallas.composite_lists, options=options))
  result["forward"] = clock(compose, bundle, lists)
  channels, walked = compose(bundle, lists)
  draw = functools.partial(jax.random.normal, jax.random.key(0))
  weights = jax.tree.map(lambda c: draw(c.shape), channels)
  rows = jax.jit(functools.partial(pallas.gradient_rows, options=options))
  result["backward_rows"] = clock(rows, bundle, lists, walked, channels, weights)
  row, written = rows(bundle, lists, walked, channels, weights)
  add = jax.jit(functools.partial(pallas.sum_rows, options=options))
  result["backward_sums"] = clock(add, row, written, lists)
  result["kept_m"] = float(lists.lengths.astype(jnp.float32).sum()) / 1e6
  result["walked_m"] = float(walked.astype(jnp.float32).sum()) / 1e6
  result["fullest_image"] = float(lists.lengths.sum(1).max()) / setting.splats
  del row, written, lists, bundle, weights
  result["photometric"] = _time_photometric(setting, channels.colors, clock)
  return result


def _time_photometric(setting: Setting, colors: jax.Array, clock: Callable[..., float]) -> float:
  """Both losses and their gradient, of renders (I, 3, H, W) against themselves three pixels off."""
  x = jnp.moveaxis(colors, 1, -1)
  one = functools.partial(
    photometric,
    implementation=setting.implementation,
    interpret=setting.options.interpret,
  )

  def loss(x: jax.Array, y: jax.Array) -> jax.Array:
    l1, ssim = jax.vmap(one)(x, y)
    return (0.8 * l1 - 0.2 * ssim).sum()

  return clock(jax.jit(jax.value_and_grad(loss)), x, jnp.roll(x, 3, axis=1))


def check(flat: bool) -> dict[str, float]:
  """Pallas against XLA on a small scene, and two runs of the full one compared byte by byte."""
  small = Setting(flat=flat, scenes=2, splats=1500, size=128, entries=24.0)
  gaussians, ring = parameters(small), views(small)
  targets = make_targets(gaussians, ring, dataclasses.replace(small, implementation="xla"))
  run = lambda s: jax.jit(
    jax.value_and_grad(functools.partial(batch_loss, setting=s), has_aux=True)
  )
  (got, _), gradient = run(small)(gaussians, ring, targets)
  other = dataclasses.replace(small, implementation="xla")
  (want, _), expected = run(other)(gaussians, ring, targets)
  result = {"loss_error": abs(float(got - want))}
  for name, value in vars(expected).items():
    scale = jnp.abs(value).max()
    error = jnp.abs(vars(gradient)[name] - value) / scale
    result[f"gradient_error_{name}"] = float(error.max())
    result[f"gradient_error_mean_{name}"] = float(error.mean())
  full = Setting(flat=flat, scenes=2)
  gaussians, ring = parameters(full), views(full)
  targets = make_targets(gaussians, ring, full)
  twice = [jax.tree.leaves(run(full)(gaussians, ring, targets)) for _ in range(2)]
  same = [np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*twice, strict=True)]
  result["bitwise_equal"] = float(all(same))
  finite = [bool(jnp.isfinite(leaf).all()) for leaf in twice[0]]
  result["finite"] = float(all(finite))
  return result


def _settings(args: argparse.Namespace) -> Iterator[Setting]:
  for model in args.model.split(","):
    for scenes, splats, size in itertools.product(args.batch, args.splats, args.size):
      yield Setting(
        flat=model == "2d",
        scenes=scenes,
        splats=splats,
        size=size,
        entries=args.entries,
        implementation=args.implementation,
        tile_size=args.tile_size,
      )


def main() -> None:
  numbers = lambda text: [int(n) for n in text.split(",")]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--check", action="store_true", help="correctness and equal bytes")
  parser.add_argument("--time", action="store_true", help="whole iterations")
  parser.add_argument("--stages", action="store_true", help="every stage by itself")
  parser.add_argument("--profile", action="store_true", help="GPU kernels by name")
  parser.add_argument("--model", default="3d,2d")
  parser.add_argument("--batch", type=numbers, default="16", help="scenes, or several: 1,4,16,64")
  parser.add_argument("--splats", type=numbers, default="20000")
  parser.add_argument("--size", type=numbers, default="512")
  parser.add_argument("--entries", type=float, default=9.0, help="tile entries per splat")
  parser.add_argument("--tile-size", type=int, default=8)
  parser.add_argument("--steps", type=int, default=20, help="iterations per compiled call")
  parser.add_argument("--implementation", default="pallas", choices=("pallas", "xla"))
  parser.add_argument("--name", default="w1", help="name of the JSON file in $OUT")
  args = parser.parse_args()
  rows: list[dict[str, Any]] = []
  if args.check:
    for model in args.model.split(","):
      rows.append(dict(check=model, **check(model == "2d")))
      show(rows[-1])
  for setting in _settings(args):
    row: dict[str, Any] = dict(model="2d" if setting.flat else "3d", scenes=setting.scenes)
    row.update(splats=setting.splats, size=setting.size)
    if args.time:
      row.update(time_whole(setting, args.steps))
    if args.stages:
      row.update(time_stages(setting, max(2, 64 // setting.scenes)))
    if args.profile:
      row.update(profile(setting, args.steps))
    if args.time or args.stages or args.profile:
      rows.append(row)
      show(row)
  report(args.name, rows)


if __name__ == "__main__":
  main()
