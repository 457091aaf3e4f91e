"""Samples a second of a training step of GS-LRM, and where its time goes.

    python -m benchmarks.train_speed --size=small --batch=32
    python -m benchmarks.train_speed --size=small --batch=128 --devices=4

A step is that of `jaxsplat_mouse.train`: draw samples from scenes on the device, run the network on
4 views, render 8, and update. Stages are timed apart, forward and backward: `network` on tokens
that are ready, `rendering` of Gaussians that are. MFU is the network's: 3 (24 L d² T + 4 L T² d)
operations a sample against --flops. A run with dropped tokens, splats or splat-tile pairs reports
no time. Prints a table and, if $OUT is set, writes train_speed.json into it.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import report, show
from jaxsplat_mouse.learn.gslrm.architecture import SIZES, Architecture
from jaxsplat_mouse.learn.gslrm.network import GSLRM
from jaxsplat_mouse.learn.gslrm.reconstruction import (
  count_splats,
  predict,
  render_samples,
  usual_capacity,
)
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights
from jaxsplat_mouse.learn.gslrm.tokens import embed_inputs
from jaxsplat_mouse.learn.training.built_in_scenes import make_scenes
from jaxsplat_mouse.learn.training.sampler import ViewCounts, draw_batch
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.learn.training.train_step import (
  as_images,
  first_state,
  local_mesh,
  replicate,
  split_slots,
  take_step,
)
from jaxsplat_mouse.learn.training.training_recipe import TrainingRecipe, training_recipe

_COUNTS = ("dropped_tokens", "dropped_splats", "overflow")


def network_operations(shape: Architecture, tokens: int) -> float:
  """Floating-point operations of blocks, forward and backward, for one sample of `tokens`."""
  linear = 24 * shape.depth * shape.width**2 * tokens
  return 3.0 * (linear + 4 * shape.depth * tokens**2 * shape.width)


def time_step(
  recipe: TrainingRecipe, scenes: TrainingScenes, devices: int, steps: int, ssim: bool
) -> dict[str, float]:
  """Times whole steps.

  Args:
    recipe: of the training.
    scenes: what it draws from.
    devices: how many share a step.
    steps: that are timed, one after the other without a look at them.
    ssim: with the loss that sets in later.

  Raises:
    ValueError: something found no room.
  """
  mesh = local_mesh(jax.local_devices()[:devices], recipe.optimizer.batch)
  state, mixture = replicate((first_state(recipe), (scenes,)), mesh)
  slots = split_slots(recipe.optimizer.batch, mesh)
  weights = LossWeights(ssim=recipe.optimizer.ssim_weight if ssim else 0.0)
  capacity = usual_capacity(count_splats(recipe.architecture, recipe.data.inputs))
  step = lambda state: take_step(
    state,
    mixture,
    slots,
    recipe=recipe,
    shares=(1.0,),
    mesh=mesh,
    weights=weights,
    capacity=capacity,
  )
  begin = time.perf_counter()
  state, record = jax.block_until_ready(step(state))
  compile_s = time.perf_counter() - begin
  records, begin = [], time.perf_counter()
  for _ in range(steps):
    state, record = step(state)
    records.append(record)
  jax.block_until_ready(state)
  seconds = (time.perf_counter() - begin) / steps
  for name in _COUNTS:
    most = max(int(record[name]) for record in records)
    if most:
      raise ValueError(f"{name}: {most}, expected 0; the time would be of less work")
  return dict(ms=1e3 * seconds, samples_per_s=recipe.optimizer.batch / seconds, compile_s=compile_s)


def time_stages(recipe: TrainingRecipe, scenes: TrainingScenes, repeat: int) -> dict[str, float]:
  """Times the network and the rendering of one batch on one device, forward and backward, ms."""
  shape, data = recipe.architecture, recipe.data
  counts = ViewCounts(inputs=data.inputs, total=data.views)
  slots = jnp.arange(recipe.optimizer.batch)
  draw = jax.jit(lambda s: draw_batch((s,), (1.0,), jnp.uint32(0), jnp.int32(0), slots, counts))
  images = as_images(draw(scenes))
  inputs = dataclasses.replace(
    images, rgba=images.rgba[:, : data.inputs], cameras=images.cameras[:, : data.inputs]
  )
  parameters = first_state(recipe).parameters
  tokens = jax.jit(jax.vmap(lambda one: embed_inputs(one, shape)))(inputs)

  def network(parameters: Any) -> jax.Array:
    raw, _ = GSLRM(shape).apply({"params": parameters}, tokens.features, tokens.count)
    return (raw**2).mean()

  gaussians = jax.jit(lambda p: predict(p, inputs, shape).gaussians)(parameters)

  def rendering(gaussians: Any) -> jax.Array:
    output = render_samples(gaussians, images.cameras)
    return (output.rgb**2).mean() + (output.alpha**2).mean()

  network_ms = _time(jax.jit(jax.grad(network)), parameters, repeat)
  operations = recipe.optimizer.batch * network_operations(shape, tokens.features.shape[1])
  return dict(
    network_ms=network_ms,
    network_tflops=operations / network_ms * 1e-9,
    rendering_ms=_time(jax.jit(jax.grad(rendering)), gaussians, repeat),
    tokens_used=float(tokens.count.mean()),
    tokens_most=int(tokens.count.max()),
    splats_shown=float((gaussians.logit_opacities > -30).sum(1).mean()),
  )


def _time(function: Callable[[Any], Any], argument: Any, repeat: int) -> float:
  """Median milliseconds of a call."""
  jax.block_until_ready(function(argument))
  times = []
  for _ in range(repeat):
    begin = time.perf_counter()
    jax.block_until_ready(function(argument))
    times.append(1e3 * (time.perf_counter() - begin))
  return float(np.median(times))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--size", default="small", choices=list(SIZES))
  parser.add_argument("--batch", type=int, default=32, help="samples of a step, on all devices")
  parser.add_argument("--devices", default="1", help="numbers of devices, as 1,2,4")
  parser.add_argument("--tokens", type=int, help="patches of a sample; 0 for all")
  parser.add_argument("--scenes", type=int, default=16, help="built-in mice, 10 views each")
  parser.add_argument("--steps", type=int, default=50)
  parser.add_argument("--flops", type=float, default=989.0, help="peak of the device, TFLOP/s")
  args = parser.parse_args()
  recipe = training_recipe(args.size)
  shape = recipe.architecture
  if args.tokens is not None:
    shape = dataclasses.replace(shape, max_tokens=args.tokens)
  optimizer = dataclasses.replace(recipe.optimizer, batch=args.batch)
  recipe = dataclasses.replace(recipe, architecture=shape, optimizer=optimizer)
  scenes = make_scenes("mice", range(args.scenes), shape.image_size, views=10)
  rows = []
  for devices in map(int, args.devices.split(",")):
    for ssim in (False, True):
      row = dict(size=args.size, batch=args.batch, devices=devices, ssim=ssim)
      rows.append({**row, **time_step(recipe, scenes, devices, args.steps, ssim)})
      show(rows[-1])
  stages = time_stages(recipe, scenes, repeat=10)
  rows.append({"size": args.size, "batch": args.batch, **stages})
  rows[-1]["network_mfu"] = stages["network_tflops"] / args.flops
  show(rows[-1])
  report("train_speed", rows)


if __name__ == "__main__":
  main()
