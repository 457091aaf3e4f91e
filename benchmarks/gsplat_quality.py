"""Novel-view scores of a fit with gsplat, to which our recipes are compared.

    python -m benchmarks.gsplat_quality                           four scenes, one seed
    python -m benchmarks.gsplat_quality --scenes=walk_pied,rear_grey --seeds=0,1,2
    python -m benchmarks.gsplat_quality --folder=DATA/spot,DATA/head --iterations=1500

Expected of the first, on an H100: stand_agouti 24.81 dB / .9863, walk_pied 24.13 / .9799,
walk_fawn_fur 25.44 / .9820, rear_grey 26.26 / .9890.

This project re-implements a recipe ("B + opacity regulariser .03", see `gsplat_fit.Recipe`) with
the kernels and the MCMC strategy of gsplat 1.5.3; gsplat's authors have no part in it. It sees the
same six views in the same canonical frame, starts from the same Gaussians on the visual hull as our
3dgs fit, and is scored at the same novel views by the same metric as `quality.py`; the table and
gsplat_quality.json in $OUT have the form of that script's.

Needs PyTorch with CUDA and gsplat, which compiles its kernels with nvcc at the first start (about
two minutes). JAX makes scenes and hulls on the CPU unless JAX_PLATFORMS says otherwise.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

# Before JAX starts: the GPU's memory, and its libraries, are PyTorch's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
from absl import app, flags

from benchmarks import mice, quality
from benchmarks.workload import report
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset.writer import to_rgba8
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.runtime import devices

if TYPE_CHECKING:  # PyTorch and gsplat may be missing; `missing` returns which
  from benchmarks import gsplat_fit

NAME = "gsplat"
SAMPLE = ("stand_agouti", "walk_pied", "walk_fawn_fur", "rear_grey")
_VIEWS_AT_ONCE = 4
_SHOWN = 1.0 / 255.0  # opacity below which gsplat shows nothing


def missing() -> str | None:
  """Returns why gsplat cannot run here, in one line, or None; compiles its kernels if needed."""
  for name in ("torch", "gsplat"):
    if importlib.util.find_spec(name) is None:
      return f"{name} is not installed"
  import torch

  if not torch.cuda.is_available():
    return "PyTorch finds no CUDA device"
  try:
    from gsplat.cuda import _backend
  except (ImportError, OSError) as error:
    return f"gsplat's kernels cannot be loaded: {str(error).splitlines()[0]}"
  return None if _backend._C is not None else "gsplat needs nvcc to compile its kernels"


def describe() -> dict[str, Any]:
  """Returns the GPU that PyTorch uses, in the form of `devices.describe`, and the versions."""
  import torch

  return {
    "platform": "gpu",
    "kind": torch.cuda.get_device_name(),
    "count": 1,
    "memory": torch.cuda.get_device_properties(0).total_memory,
    "torch": torch.__version__,
    "gsplat": importlib.metadata.version("gsplat"),
  }


def starting_points(
  trial: quality.Trial, seeds: Sequence[int], recipe: quality.Recipe
) -> list[Gaussians]:
  """Returns the Gaussians (N,) that our fit of a trial starts from, for each seed.

  Args:
    trial: one scene.
    seeds: of the draws on the hull.
    recipe: ours.

  Raises:
    ValueError: the silhouettes have no hull.
  """
  return [start_on_hull(trial.scene, recipe.fit, recipe.hull, seed)[1] for seed in seeds]


def render_rgba(
  parameters: gsplat_fit.Parameters,
  cameras: Cameras,
  rasterizer: gsplat_fit.Rasterizer,
  where: str,
) -> np.ndarray:
  """Renders straight 8-bit RGBA (V, H, W, 4), quantised by the rule of our own renders.

  Args:
    parameters: (N,).
    cameras: (V,) of one image size.
    rasterizer: renders them.
    where: PyTorch's name of the device.
  """
  import torch

  from benchmarks import gsplat_fit

  images = []
  for start in range(0, len(cameras), _VIEWS_AT_ONCE):
    part = jax.tree.map(np.asarray, cameras)[start : start + _VIEWS_AT_ONCE]
    with torch.no_grad():
      poses, intrinsics = gsplat_fit.camera_tensors(part, where)
      rgb, alpha = rasterizer(parameters, poses, intrinsics, part.width, part.height)
    images.append(to_rgba8(rgb.cpu().numpy(), alpha[..., 0].cpu().numpy()))
  return np.concatenate(images)


def score(
  trial: quality.Trial,
  parameters: gsplat_fit.Parameters,
  rasterizer: gsplat_fit.Rasterizer,
  where: str,
) -> dict[str, float]:
  """Returns mean fg PSNR and IoU of one fit at its novel views, as `quality.score` does.

  Args:
    trial: the scene.
    parameters: (N,) of the fit.
    rasterizer: renders them.
    where: PyTorch's name of the device.
  """
  rendered: dict[int, np.ndarray] = {}
  for index, cameras in trial.groups:
    images = render_rgba(parameters, cameras, rasterizer, where)
    rendered.update(zip(index.tolist(), images, strict=True))
  scores = quality.score_images([rendered[i] for i in range(len(rendered))], trial.truth)
  return {**scores, "splats": float((parameters["opacities"].sigmoid() >= _SHOWN).sum())}


def run(
  trials: Sequence[quality.Trial],
  seeds: Sequence[int],
  ours: quality.Recipe,
  recipe: gsplat_fit.Recipe,
  rasterizer: gsplat_fit.Rasterizer | None = None,
  where: str = "cuda",
) -> Iterator[dict[str, Any]]:
  """Yields a row of scores, as `quality.run` does, for every scene and seed.

  Args:
    trials: the scenes.
    seeds: of the fits.
    ours: the recipe whose starting points are used.
    recipe: of the fits.
    rasterizer: gsplat's by default.
    where: PyTorch's name of the device.
  """
  import torch

  from benchmarks import gsplat_fit

  rasterizer = rasterizer or gsplat_fit.rasterize
  for trial in trials:
    views = gsplat_fit.make_views(trial.scene, where)
    for seed, start in zip(seeds, starting_points(trial, seeds, ours), strict=True):
      parameters = gsplat_fit.make_parameters(start, where)
      started = time.monotonic()
      gsplat_fit.fit(parameters, views, seed, recipe, rasterizer)
      if where == "cuda":
        torch.cuda.synchronize()
      seconds = time.monotonic() - started
      scores = score(trial, parameters, rasterizer, where)
      yield {"recipe": NAME, "scene": trial.name, "seed": seed, "seconds": seconds, **scores}


def our_recipe(shrink: dict[str, Any]) -> quality.Recipe:
  """Returns our 3dgs recipe at the comparison's number of splats, for the starting points."""
  changes = {"fit.num_gaussians": 20_000, "fit.sh_degree": 0, **shrink}
  return quality.make_recipe("3dgs", "3dgs", changes)


def _trials(given: Any) -> list[quality.Trial]:
  size, views, _ = quality.SIZES[given.size]
  scenes = () if given.folder else given.scenes
  return quality.make_trials(scenes, given.folder, size, views, given.cache)


def _main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  reason = missing()
  if reason:
    sys.exit(f"gsplat_quality: {reason}")
  from benchmarks import gsplat_fit

  devices.set_up_cache()
  recipe = gsplat_fit.Recipe(iterations=given.iterations)
  ours = our_recipe(quality.SIZES[given.size][2])
  rows = []
  for row in run(_trials(given), [int(s) for s in given.seeds], ours, recipe):
    rows.append(row)
    quality.print_row(row)
    report("gsplat_quality", rows, device=describe())  # after every row, in case time runs out
  print(quality.make_table(rows))


def _define_flags() -> None:
  flags.DEFINE_list("scenes", list(SAMPLE), f"Of {', '.join(mice.CASES)}.")
  flags.DEFINE_list("folder", [], "Scene folders in place of the built-in mice.")
  flags.DEFINE_list("seeds", ["0"], "Seeds of the fits.")
  flags.DEFINE_integer("iterations", 700, "Steps of a fit.", 1)
  flags.DEFINE_enum("size", "full", list(quality.SIZES), "How large everything is.")
  flags.DEFINE_string("cache", "", "A folder that stores the rendered photographs.")


if __name__ == "__main__":
  _define_flags()
  app.run(_main)
