"""The fixed splatting workload W1, which every speed figure is quoted on, and how to time it.

One scene is 20,000 Gaussians on an ellipsoid shell the size of an animal, sigma about 2 px, seen by
6 cameras of 512 x 512. One iteration is activations, projection, binning, rasterization,
0.8 L1 + 0.2 (1 - SSIM), backward and Adam on all fields. The 2D model blends normals, ray depth,
median depth and distortion too, and each of them receives a gradient.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsplat_mouse import spherical_harmonics
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, Gaussians3D
from jaxsplat_mouse.math import logit
from jaxsplat_mouse.ops.photometric.api import photometric
from jaxsplat_mouse.ops.rasterize import base
from jaxsplat_mouse.rendering import render

VIEWS, DISTANCE, ELEVATION, FOV = 6, 2.7, 20.0, 50.0
GEOMETRY_WEIGHT = 1e-3


@dataclasses.dataclass(frozen=True)
class Setting:
  """A variant of the workload.

  Attributes:
    flat: discs with geometry (2D) instead of ellipsoids (3D).
    scenes: scenes of a batch.
    splats: splats of a scene.
    size: side of the images, pixels.
    entries: capacity of the tile lists, entries per splat.
    implementation: `pallas` or `xla`.
    tile_size: side of a tile, pixels.
  """

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
  """Returns one scene: splats on an ellipsoid, activated values, float32.

  Args:
    seed: of the random numbers.
    count: number of splats N.

  Returns:
    `means`, `scales`, `rgb` (N, 3), `quats` (N, 4) and `opacities` (N,).
  """
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
  """Returns the optimised parameters (B, N, ...) of all scenes."""
  scenes = [shell(seed, setting.splats) for seed in range(setting.scenes)]
  stacked = {name: jnp.stack([s[name] for s in scenes]) for name in scenes[0]}
  make = Gaussians2D if setting.flat else Gaussians3D
  return make(
    means=stacked["means"],
    log_scales=jnp.log(stacked["scales"][..., : 2 if setting.flat else 3]),
    quats=stacked["quats"],
    logit_opacities=logit(stacked["opacities"]),
    sh=spherical_harmonics.from_rgb(stacked["rgb"])[:, :, None, :],
  )


def views(setting: Setting) -> Cameras:
  """Returns the six cameras."""
  ring = generate_camera_poses(VIEWS, ELEVATION, DISTANCE, setting.size, FOV)
  return jax.tree.map(jnp.asarray, ring)


def view_loss(
  gaussians: Gaussians, camera: Cameras, target: jax.Array, setting: Setting
) -> tuple[jax.Array, jax.Array]:
  """Returns the loss () of one view of one scene, and () how many tile entries were dropped.

  Args:
    gaussians: (N,).
    camera: one camera.
    target: image to fit (3, H, W).
    setting: the workload.
  """
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
  l1, ssim = photometric(
    out.rgb,
    jnp.moveaxis(target, 0, -1),
    implementation=setting.implementation,
    interpret=options.interpret,
  )
  total = 0.8 * l1 + 0.2 * (1 - ssim)
  if options.geometry:
    facing = out.alpha.mean() - (out.normal * jnp.array([0.3, 0.4, 0.5])).mean()
    depth = 0.5 * (out.depth.mean() + out.median_depth.mean())
    total += GEOMETRY_WEIGHT * (out.distortion.mean() + facing + depth)
  return total, out.overflow


def batch_loss(
  gaussians: Gaussians, ring: Cameras, targets: Any, setting: Setting
) -> tuple[jax.Array, jax.Array]:
  """Returns the sum over the scenes of their mean loss, and the largest number of dropped entries.

  Args:
    gaussians: (B, N, ...).
    ring: (V,) cameras of every scene.
    targets: images to fit (B, V, 3, H, W).
    setting: the workload.
  """
  one = functools.partial(view_loss, setting=setting)
  over_views = jax.vmap(one, in_axes=(None, 0, 0))
  loss, overflow = jax.vmap(over_views, in_axes=(0, None, 0))(gaussians, ring, targets)
  return loss.mean(1).sum(), overflow.max()


def make_targets(gaussians: Gaussians, ring: Cameras, setting: Setting) -> Any:
  """Renders images to fit (B, V, 3, H, W): the scenes themselves, shifted by three pixels.

  Args:
    gaussians: (B, N, ...).
    ring: (V,) cameras of every scene.
    setting: the workload.
  """

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
        interpret=setting.options.interpret,
      ).rgb
    )
    images = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(gaussians, ring)
    return jnp.moveaxis(jnp.roll(images, 3, axis=2), -1, 2)

  return run(gaussians)


def iterate(setting: Setting, steps: int) -> Callable[..., Any]:
  """Returns a compiled function: `steps` iterations, (state, ring, targets) -> state, overflow."""
  adam = optax.adam(1e-4, eps=1e-15)

  def step(state: Any, _: None, ring: Cameras, targets: Any) -> Any:
    gaussians, moments = state
    gradient = jax.grad(batch_loss, has_aux=True)
    change, overflow = gradient(gaussians, ring, targets, setting)
    change, moments = adam.update(change, moments)
    return (optax.apply_updates(gaussians, change), moments), overflow

  def run(state: Any, ring: Cameras, targets: Any) -> Any:
    body = functools.partial(step, ring=ring, targets=targets)
    state, overflow = jax.lax.scan(body, state, None, length=steps)
    return state, overflow.max()

  return jax.jit(run, donate_argnums=0)


def milliseconds(run: Callable[..., Any], *args: Any, repeat: int = 10, rounds: int = 3) -> float:
  """Returns the median over rounds of the mean time of a call in ms, after one warm-up call.

  Args:
    run: the function to time.
    *args: its arguments.
    repeat: calls of a round.
    rounds: how many rounds.
  """
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


def report(name: str, rows: Sequence[dict[str, Any]], **more: Any) -> None:
  """Writes rows as `NAME.json` into the folder $OUT; does nothing if $OUT is not set.

  Args:
    name: of the file, without its ending.
    rows: of the table.
    **more: other values of the document; `device` replaces the name of the first JAX device.
  """
  if os.environ.get("OUT"):
    more.setdefault("device", jax.devices()[0].device_kind)
    document = dict(jax=jax.__version__, argv=sys.argv[1:], rows=list(rows), **more)
    path = pathlib.Path(os.environ["OUT"], f"{name}.json")
    path.write_text(json.dumps(document, indent=1) + "\n")


def show(row: Mapping[str, Any]) -> None:
  """Prints one row of results."""
  cells = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()]
  print("\n  ".join(cells) if len(cells) > 30 else "  ".join(cells), flush=True)
