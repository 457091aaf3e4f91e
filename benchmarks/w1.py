"""W1, the fixed splatting workload that every speed figure is quoted on.

    python -m benchmarks.w1 --time --model=3d --batch=1,4,16,64
    python -m benchmarks.w1 --check

One scene is 20,000 Gaussians on an ellipsoid shell the size of an animal, sigma about 2 px, seen by
6 cameras of 512 x 512. One iteration is activations, projection, binning, rasterization,
0.8 L1 + 0.2 (1 - SSIM), backward and Adam on all fields. The 2D model blends normals, ray depth,
median depth and distortion too, and each of them receives a gradient. Prints a table, and JSON into
$OUT.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsplat_mouse import cameras as cam
from jaxsplat_mouse import losses, spherical_harmonics
from jaxsplat_mouse import math as jm
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, Gaussians3D
from jaxsplat_mouse.projection import project
from jaxsplat_mouse.rasterize import api, base, binning, pallas
from jaxsplat_mouse.render import render

VIEWS, DISTANCE, ELEVATION, FOV = 6, 2.7, 20.0, 50.0
GEOMETRY_WEIGHT = 1e-3


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is run: model, implementation and sizes."""

  flat: bool
  scenes: int
  splats: int = 20_000
  size: int = 512
  entries: float = 9.0
  implementation: str = "pallas"
  tile_size: int = 8

  @property
  def options(self) -> base.Options:
    """The rasterizer's options."""
    return base.Options(
      width=self.size,
      height=self.size,
      flat=self.flat,
      geometry=self.flat,
      capacity=int(self.entries * self.splats),
      tile_size=self.tile_size,
      interpret=jax.default_backend() == "cpu",
    )


def shell(seed: int, count: int) -> dict[str, np.ndarray]:
  """One scene: splats on an ellipsoid, activated values, float32."""
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(count, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  axes = np.array([0.8, 0.35, 0.35]) * rng.uniform(0.9, 1.1, 3)
  means = directions * axes * (1 + rng.normal(size=(count, 1)) * 0.01)
  quats = rng.normal(size=(count, 4))
  quats /= np.linalg.norm(quats, axis=1, keepdims=True)
  # Knud Thomsen's approximation of the surface of an ellipsoid, with his exponent rounded.
  powers = [(axes[i] * axes[j]) ** 1.6 for i, j in ((0, 1), (0, 2), (1, 2))]
  surface = 4 * np.pi * (sum(powers) / 3) ** (1 / 1.6)
  scales = np.sqrt(surface / count) * 0.8 * np.exp(rng.normal(size=(count, 3)) * 0.3)
  opacities = 1 / (1 + np.exp(-(rng.normal(size=count) * 1.5 + 1)))
  waves = np.sin(means * 5 + rng.uniform(0, 6, 3))
  rgb = np.clip(0.5 + 0.4 * waves + rng.normal(size=(count, 3)) * 0.05, 0, 1)
  values = dict(means=means, quats=quats, scales=scales, opacities=opacities, rgb=rgb)
  return {name: value.astype(np.float32) for name, value in values.items()}


def parameters(setting: Setting) -> Gaussians:
  """The scenes (B, N, ...) as what is optimised."""
  scenes = [shell(seed, setting.splats) for seed in range(setting.scenes)]
  stacked = {name: jnp.stack([s[name] for s in scenes]) for name in scenes[0]}
  make = Gaussians2D if setting.flat else Gaussians3D
  return make(
    means=stacked["means"],
    log_scales=jnp.log(stacked["scales"][..., : 2 if setting.flat else 3]),
    quats=stacked["quats"],
    logit_opacities=jm.logit(stacked["opacities"]),
    sh=spherical_harmonics.from_rgb(stacked["rgb"])[:, :, None, :],
  )


def views(setting: Setting) -> cam.Cameras:
  """The six cameras."""
  ring = cam.generate_camera_poses(VIEWS, ELEVATION, DISTANCE, setting.size, FOV)
  return jax.tree.map(jnp.asarray, ring)


def view_loss(
  gaussians: Gaussians, camera: cam.Cameras, target: jax.Array, mean: jax.Array, setting: Setting
) -> tuple[jax.Array, jax.Array]:
  """Loss of one view of one scene, and the intersections that did not fit."""
  options = setting.options
  out = render(
    gaussians,
    camera,
    geometry=options.geometry,
    capacity=options.capacity,
    tile_size=options.tile_size,
    interpret=options.interpret,
    implementation=setting.implementation,
  )
  total = 0.8 * losses.l1(out.rgb, target)
  total += 0.2 * (1 - losses.ssim(out.rgb, target, y_mean=mean))
  if options.geometry:
    facing = out.alpha.mean() - (out.normal * jnp.array([0.3, 0.4, 0.5])).mean()
    depth = 0.5 * (out.depth.mean() + out.median_depth.mean())
    total += GEOMETRY_WEIGHT * (out.distortion.mean() + facing + depth)
  return total, out.overflow


def batch_loss(
  gaussians: Gaussians, ring: cam.Cameras, targets: Any, setting: Setting
) -> tuple[jax.Array, jax.Array]:
  """Sum over the scenes of their mean loss, largest overflow."""
  one = functools.partial(view_loss, setting=setting)
  over_views = jax.vmap(one, in_axes=(None, 0, 0, 0))
  loss, overflow = jax.vmap(over_views, in_axes=(0, None, 0, 0))(gaussians, ring, *targets)
  return loss.mean(1).sum(), overflow.max()


def make_targets(gaussians: Gaussians, ring: cam.Cameras, setting: Setting) -> Any:
  """Images to fit, their own renderings moved by three pixels, and the blurs SSIM takes of them."""

  @jax.jit
  def run(gaussians: Gaussians) -> Any:
    one = lambda g, c: (
      render(
        g,
        c,
        geometry=False,
        capacity=setting.options.capacity,
        tile_size=setting.tile_size,
        implementation=setting.implementation,
      ).rgb
    )
    images = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(gaussians, ring)
    images = jnp.roll(images, 3, axis=2)
    return images, jax.vmap(jax.vmap(losses.gaussian_blur))(images)

  return run(gaussians)


def iterate(setting: Setting, steps: int) -> Callable[..., Any]:
  """`steps` iterations in one compiled call: state -> state, losses, overflow."""
  adam = optax.adam(1e-4, eps=1e-15)

  def step(state: Any, _: None, ring: cam.Cameras, targets: Any) -> Any:
    gaussians, moments = state
    gradient = jax.grad(batch_loss, has_aux=True)
    change, overflow = gradient(gaussians, ring, targets, setting)
    change, moments = adam.update(change, moments)
    return (optax.apply_updates(gaussians, change), moments), overflow

  def run(state: Any, ring: cam.Cameras, targets: Any) -> Any:
    body = functools.partial(step, ring=ring, targets=targets)
    state, overflow = jax.lax.scan(body, state, None, length=steps)
    return state, overflow.max()

  return jax.jit(run, donate_argnums=0)


def milliseconds(run: Callable[..., Any], *args: Any, repeat: int = 10, rounds: int = 3) -> float:
  """Median over rounds of the mean time of `repeat` calls, after one warm-up call."""
  jax.block_until_ready(run(*args))
  times = []
  for _ in range(rounds):
    start = time.perf_counter()
    for _ in range(repeat):
      result = run(*args)
    jax.block_until_ready(result)
    times.append((time.perf_counter() - start) / repeat * 1e3)
    del result
  return float(np.median(times))


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
  """Milliseconds per iteration of the GPU kernels that take the longest, by name."""
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


def _bundles(setting: Setting) -> Callable[..., base.Bundle]:
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
  to_bundles = jax.jit(_bundles(setting))
  result = {"projection": clock(to_bundles, gaussians, ring)}
  bundle = to_bundles(gaussians, ring)

  def pull(gaussians: Gaussians, features: jax.Array) -> Gaussians:
    run = lambda g: _bundles(setting)(g, ring).features
    return jax.vjp(run, gaussians)[1](features)[0]

  result["projection_and_backward"] = clock(jax.jit(pull), gaussians, bundle.features)
  bin_ = jax.jit(functools.partial(binning.bin_splats, options=options))
  result["binning"] = clock(bin_, bundle)
  lists = bin_(bundle)
  compose = jax.jit(functools.partial(pallas.composite, options=options))
  result["forward"] = clock(compose, bundle, lists)
  channels, walked = compose(bundle, lists)
  residuals = pallas.Residuals(lists=lists, walked=walked)
  weights = jax.random.normal(jax.random.key(0), channels.shape)
  rows = jax.jit(functools.partial(pallas.gradient_rows, options=options))
  result["backward_rows"] = clock(rows, bundle, residuals, channels, weights)
  row, written = rows(bundle, residuals, channels, weights)
  add = jax.jit(functools.partial(pallas.sum_rows, shape=bundle.features.shape, options=options))
  result["backward_sums"] = clock(add, row, written, lists)
  result["candidates_m"] = float(lists.slot_counts.astype(jnp.float32).sum()) / 1e6
  result["kept_m"] = float((lists.ends - lists.starts).astype(jnp.float32).sum()) / 1e6
  result["walked_m"] = float(walked.astype(jnp.float32).sum()) / 1e6
  del row, written, residuals, lists, bundle, weights, channels
  result.update(_time_losses(setting, clock))
  return result


def _time_losses(setting: Setting, clock: Callable[..., float]) -> dict[str, float]:
  shape = (setting.scenes * VIEWS, setting.size, setting.size, 3)
  x = jax.random.uniform(jax.random.key(0), shape)
  y = jnp.clip(x + 0.1 * jax.random.normal(jax.random.key(1), shape), 0.0, 1.0)
  mean = jax.jit(jax.vmap(losses.gaussian_blur))(y)
  ssim = lambda x, y, mean: jax.vmap(lambda x, y, m: losses.ssim(x, y, y_mean=m))(x, y, mean).sum()
  l1 = lambda x, y: jax.vmap(losses.l1)(x, y).sum()
  return {
    "ssim": clock(jax.jit(jax.value_and_grad(ssim)), x, y, mean),
    "l1": clock(jax.jit(jax.value_and_grad(l1)), x, y),
  }


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
    for scenes in map(int, args.batch.split(",")):
      yield Setting(
        flat=model == "2d",
        scenes=scenes,
        splats=args.splats,
        size=args.size,
        entries=args.entries,
        implementation=args.implementation,
        tile_size=args.tile_size,
      )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--check", action="store_true", help="correctness and equal bytes")
  parser.add_argument("--time", action="store_true", help="whole iterations")
  parser.add_argument("--stages", action="store_true", help="every stage by itself")
  parser.add_argument("--profile", action="store_true", help="GPU kernels by name")
  parser.add_argument("--model", default="3d,2d")
  parser.add_argument("--batch", default="16")
  parser.add_argument("--splats", type=int, default=20_000)
  parser.add_argument("--size", type=int, default=512)
  parser.add_argument("--entries", type=float, default=9.0, help="tile entries per splat")
  parser.add_argument("--tile-size", type=int, default=8)
  parser.add_argument("--steps", type=int, default=20, help="iterations per compiled call")
  parser.add_argument("--implementation", default="pallas", choices=("pallas", "xla"))
  parser.add_argument("--name", default="w1", help="name of the JSON file in $OUT")
  args = parser.parse_args()
  device = jax.devices()[0]
  rows: list[dict[str, Any]] = []
  if args.check:
    for model in args.model.split(","):
      rows.append(dict(check=model, **check(model == "2d")))
      _print(rows[-1])
  for setting in _settings(args):
    row: dict[str, Any] = dict(model="2d" if setting.flat else "3d", scenes=setting.scenes)
    if args.time:
      row.update(time_whole(setting, args.steps))
    if args.stages:
      row.update(time_stages(setting, max(2, 64 // setting.scenes)))
    if args.profile:
      row.update(profile(setting, args.steps))
    if args.time or args.stages or args.profile:
      rows.append(row)
      _print(row)
  if "OUT" in os.environ:
    path = pathlib.Path(os.environ["OUT"]) / f"{args.name}.json"
    document = dict(device=device.device_kind, jax=jax.__version__, argv=sys.argv[1:], rows=rows)
    path.write_text(json.dumps(document, indent=1))


def _print(row: dict[str, Any]) -> None:
  cells = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()]
  print("\n  ".join(cells) if len(cells) > 30 else "  ".join(cells), flush=True)


if __name__ == "__main__":
  main()
