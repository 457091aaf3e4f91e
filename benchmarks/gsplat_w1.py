"""W1 with gsplat 1.5.3 in PyTorch: the same scenes, cameras, loss and optimiser on the same GPU.

    python -m benchmarks.gsplat_w1 --model=3d --batch=1,4,16,64
    python -m benchmarks.gsplat_w1 --model=2d --batch=1,16

Expected, on an H100, per scene: 5.18 ms at batch 1 and 3.81 at batch 16 in 3D, 12.8 and 5.60 in 2D.

Needs a CUDA GPU, PyTorch and gsplat, whose kernels are compiled on the first call (nvcc). One
iteration is activations, `rasterization` with packed=False over all scenes and cameras (or
`rasterization_2dgs` with normals, distortion, expected and median depth), 0.8 L1 + 0.2 (1 - SSIM),
backward and fused Adam on all fields. SSIM is `fused_ssim` if that can be imported, otherwise a
separable convolution in this file; the table names it. The loss of the geometry is that of
`workload.view_loss`. If a batch of 2D scenes cannot be rendered in one call, which is tested before
anything is timed, the scenes are rendered one after the other; `calls` counts the calls.

Prints milliseconds per iteration (median of the rounds after warm-up, GPU idle before and after
each round) and the peak of the allocated memory and, if $OUT is set, writes gsplat_w1_MODEL.json
into it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# The workload's arrays come from JAX on the host; PyTorch gets the GPU to itself.
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

from benchmarks.workload import GEOMETRY_WEIGHT, Setting, parameters, report, show, views

_SHIFT = 3  # pixels by which the targets are moved
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_RATE, _EPS = 1e-4, 1e-15

Tensors = dict[str, Any]


def find_libraries() -> tuple[Any, Any]:
  """Returns PyTorch and gsplat; ends the program with one line without them or a CUDA GPU."""
  modules = []
  for name in ("torch", "gsplat"):
    try:
      modules.append(importlib.import_module(name))
    except ImportError as error:
      raise SystemExit(f"gsplat_w1: needs {name} ({error})") from None
  torch = modules[0]
  if not torch.cuda.is_available():
    raise SystemExit("gsplat_w1: needs a CUDA GPU; torch.cuda.is_available() is False")
  return torch, modules[1]


def make_ssim(torch: Any) -> tuple[Callable[[Any, Any], Any], str]:
  """Returns a function for the mean SSIM of images (I, 3, H, W), and the name of its source."""
  try:
    from fused_ssim import fused_ssim
  except ImportError:
    return lambda x, y: conv_ssim(torch, x, y), "separable convolution"
  return fused_ssim, "fused_ssim"


def conv_ssim(torch: Any, x: Any, y: Any) -> Any:
  """Returns the mean SSIM of images (I, C, H, W): 11-tap Gaussian window, zeros outside.

  Args:
    torch: the library.
    x: images.
    y: images.
  """
  channels = x.shape[1]
  taps = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
  taps = torch.exp(-(taps**2) / (2 * _SIGMA**2))
  taps = (taps / taps.sum()).expand(5 * channels, 1, _WINDOW)
  maps = torch.cat([x, y, x * x, y * y, x * y], 1)
  convolve, half = torch.nn.functional.conv2d, _WINDOW // 2
  maps = convolve(maps, taps[:, :, :, None], padding=(half, 0), groups=5 * channels)
  maps = convolve(maps, taps[:, :, None, :], padding=(0, half), groups=5 * channels)
  mx, my, xx, yy, xy = maps.chunk(5, 1)
  above = (2 * mx * my + _C1) * (2 * (xy - mx * my) + _C2)
  below = (mx * mx + my * my + _C1) * (xx - mx * mx + yy - my * my + _C2)
  return (above / below).mean()


def activated(torch: Any, fields: Tensors) -> Tensors:
  """Returns the arguments of gsplat's rasterizers from the optimised fields."""
  return dict(
    means=fields["means"],
    quats=fields["quats"],
    scales=torch.exp(fields["log_scales"]),
    opacities=torch.sigmoid(fields["logit_opacities"]),
    colors=fields["sh"],
    sh_degree=0,
  )


def padded(torch: Any, splats: Tensors) -> Tensors:
  """Returns discs with a third scale, which gsplat requires and ignores."""
  scales = splats["scales"]
  return {**splats, "scales": torch.cat([scales, torch.ones_like(scales[..., :1])], -1)}


class Renderer:
  """Renders all scenes in all cameras, and computes the loss of their geometry."""

  def __init__(self, torch: Any, gsplat: Any, setting: Setting, device: str):
    ring = views(setting)
    fx, fy, cx, cy = np.asarray(ring.intrinsics).T
    matrices = np.zeros((len(fx), 3, 3), np.float32)
    matrices[:, 0, 0], matrices[:, 1, 1] = fx, fy
    matrices[:, 0, 2], matrices[:, 1, 2], matrices[:, 2, 2] = cx, cy, 1.0
    copies = lambda x: torch.tensor(np.tile(x, (setting.scenes, 1, 1, 1)), device=device)
    poses = np.asarray(ring.world_to_camera)
    self._cameras = dict(viewmats=copies(poses), Ks=copies(matrices))
    self._size = dict(width=setting.size, height=setting.size, packed=False)
    self._torch, self._gsplat, self._flat = torch, gsplat, setting.flat
    self._direction = torch.tensor([0.3, 0.4, 0.5], device=device)
    self._scenes, self._together = setting.scenes, True

  @property
  def calls(self) -> int:
    """Calls of gsplat for one batch."""
    return 1 if self._together else self._scenes

  def loop(self) -> None:
    """Switches to one call per scene."""
    self._together = False

  def __call__(self, fields: Tensors) -> tuple[Any, Any]:
    """Returns colours (B, V, H, W, 3), and the sum over scenes of the geometry's loss."""
    splats = activated(self._torch, fields)
    if not self._flat:
      image = self._gsplat.rasterization(**splats, **self._cameras, **self._size)[0]
      return image, 0.0
    splats = padded(self._torch, splats)
    if self._together:
      return self._discs(splats, self._cameras)
    pick = lambda values, i: {
      k: v[i] if isinstance(v, self._torch.Tensor) else v for k, v in values.items()
    }
    found = [self._discs(pick(splats, i), pick(self._cameras, i)) for i in range(self._scenes)]
    images, costs = zip(*found, strict=True)
    return self._torch.stack(images), sum(costs)

  def _discs(self, splats: Tensors, cameras: Tensors) -> tuple[Any, Any]:
    image, alpha, normal, _, distortion, median, _ = self._gsplat.rasterization_2dgs(
      **splats, **cameras, **self._size, render_mode="RGB+ED", distloss=True
    )
    # Means over a scene's views and pixels, summed over the scenes of the call.
    scenes = image.shape[0] if image.dim() == 5 else 1
    facing = alpha.mean() - (normal * self._direction).mean()
    depth = 0.5 * (image[..., 3].mean() + median.mean())
    return image[..., :3], scenes * GEOMETRY_WEIGHT * (distortion.mean() + facing + depth)


def make_step(
  torch: Any, render: Renderer, fields: Tensors, targets: Any, ssim: Callable[[Any, Any], Any]
) -> Callable[[], None]:
  """Returns a function that does one whole iteration and changes the fields in place.

  Args:
    torch: the library.
    render: renders the batch.
    fields: the tensors that are optimised.
    targets: (B V, 3, H, W).
    ssim: returns the mean SSIM of two such batches.
  """
  device = fields["means"].device.type
  adam = torch.optim.Adam(fields.values(), lr=_RATE, eps=_EPS, fused=device == "cuda")
  scenes = len(fields["means"])

  def step() -> None:
    adam.zero_grad(set_to_none=True)
    image, geometry = render(fields)
    image = image.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
    photometric = 0.8 * (image - targets).abs().mean() + 0.2 * (1 - ssim(image, targets))
    (scenes * photometric + geometry).backward()
    adam.step()

  return step


def choose_calls(render: Renderer, fields: Tensors) -> None:
  """Renders a batch of discs in one call; switches to a call per scene if that fails."""
  try:
    render(fields)[0].sum().backward()
  except (AssertionError, IndexError, NotImplementedError, RuntimeError, ValueError) as error:
    print(f"one scene per call: {type(error).__name__} {str(error).splitlines()[:1]}")
    render.loop()


def measure(torch: Any, gsplat: Any, setting: Setting, steps: int, rounds: int) -> dict[str, Any]:
  """Times one batch.

  Args:
    torch: the library.
    gsplat: the library.
    setting: the workload.
    steps: iterations of a round.
    rounds: timed rounds; their median counts.

  Returns:
    a row of the table.
  """
  torch.cuda.empty_cache()
  torch.cuda.reset_peak_memory_stats()
  ssim, source = make_ssim(torch)
  fields = {
    name: torch.tensor(np.asarray(value), device="cuda", requires_grad=True)
    for name, value in vars(parameters(setting)).items()
  }
  render = Renderer(torch, gsplat, setting, "cuda")
  if setting.flat:
    choose_calls(render, fields)
  with torch.no_grad():
    targets = torch.roll(render(fields)[0], _SHIFT, dims=2).flatten(0, 1)
    targets = targets.permute(0, 3, 1, 2).contiguous()
  step = make_step(torch, render, fields, targets, ssim)
  times = []
  for _ in range(rounds + 1):
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
      step()
    torch.cuda.synchronize()
    times.append((time.perf_counter() - start) / steps * 1e3)
  whole = statistics.median(times[1:])
  return dict(
    model="2d" if setting.flat else "3d",
    scenes=setting.scenes,
    whole_ms=whole,
    per_scene_ms=whole / setting.scenes,
    allocated_gb=torch.cuda.max_memory_allocated() / 1e9,
    reserved_gb=torch.cuda.max_memory_reserved() / 1e9,
    calls=render.calls,
    ssim=source,
  )


def main() -> int:
  numbers = lambda text: [int(n) for n in text.split(",")]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", default="3d", choices=("3d", "2d"))
  parser.add_argument("--batch", type=numbers, help="by default 1,4,16,64 or, in 2D, 1,16")
  parser.add_argument("--splats", type=int, default=20_000)
  parser.add_argument("--size", type=int, default=512)
  parser.add_argument("--steps", type=int, default=20, help="iterations in a round")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  torch, gsplat = find_libraries()
  flat = args.model == "2d"
  rows = []
  for scenes in args.batch or ([1, 16] if flat else [1, 4, 16, 64]):
    setting = Setting(flat=flat, scenes=scenes, splats=args.splats, size=args.size)
    rows.append(measure(torch, gsplat, setting, args.steps, args.rounds))
    show(rows[-1])
  report(
    f"gsplat_w1_{args.model}",
    rows,
    device=torch.cuda.get_device_name(),
    torch=torch.__version__,
    gsplat=getattr(gsplat, "__version__", "unknown"),
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
