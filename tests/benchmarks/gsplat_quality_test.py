"""The comparison with gsplat runs as a whole on a CPU, with the two CUDA parts stood in for.

What gsplat does in Python (its MCMC strategy, its surgery on optimisers) is gsplat's own here too;
its rasterizer is replaced by a dense compositor, and the relocation kernel by the paper's formula.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math

import numpy as np
import pytest

from benchmarks import gsplat_quality, quality
from jaxsplat_mouse import losses

_ABSENT = [name for name in ("torch", "gsplat") if importlib.util.find_spec(name) is None]
needs_torch = pytest.mark.skipif(bool(_ABSENT), reason=f"not installed: {', '.join(_ABSENT)}")


@pytest.mark.parametrize("absent", ["torch", "gsplat"])
def test_what_is_missing_is_said_in_one_line(monkeypatch, absent):
  find = lambda name: None if name == absent else object()
  monkeypatch.setattr(importlib.util, "find_spec", find)
  assert gsplat_quality.missing() == f"{absent} is not installed"


def test_the_sample_is_part_of_the_set():
  assert len(gsplat_quality.SAMPLE) == 4
  assert set(gsplat_quality.SAMPLE) <= set(gsplat_quality.mice.CASES)


def dense(parameters, poses, intrinsics, width, height):
  """EWA splatting of every Gaussian onto every pixel, front to back: for a few of both."""
  import torch

  from benchmarks import gsplat_fit

  w, x, y, z = torch.nn.functional.normalize(parameters["quats"], dim=-1).unbind(-1)
  rows = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
  axes = torch.stack([torch.stack(row, -1) for row in rows], -2)
  axes = axes * torch.exp(parameters["scales"])[:, None, :]
  opacity = torch.sigmoid(parameters["opacities"])
  color = torch.clamp_min(parameters["features"] * gsplat_fit.C0 + 0.5, 0.0)
  v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
  images = []
  for pose, k in zip(poses, intrinsics, strict=True):
    point = parameters["means"] @ pose[:3, :3].T + pose[:3, 3]
    order = torch.argsort(point[:, 2])
    point, local = point[order], (pose[:3, :3] @ axes)[order]
    fx, fy, depth = k[0, 0], k[1, 1], point[:, 2]
    ratio = point[:, :2] / depth[:, None]
    jx = fx * (local[:, 0] - ratio[:, :1] * local[:, 2]) / depth[:, None]
    jy = fy * (local[:, 1] - ratio[:, 1:] * local[:, 2]) / depth[:, None]
    a, b, c = (jx * jx).sum(-1) + 0.3, (jx * jy).sum(-1), (jy * jy).sum(-1) + 0.3
    dx = u[None] - (fx * ratio[:, 0] + k[0, 2])[:, None, None]
    dy = v[None] - (fy * ratio[:, 1] + k[1, 2])[:, None, None]
    a, b, c = (term[:, None, None] for term in (a, b, c))
    power = (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / (a * c - b * b)
    alpha = (opacity[order][:, None, None] * torch.exp(-0.5 * power)).clamp_max(0.999)
    alpha = torch.where(alpha < 1.0 / 255.0, 0.0, alpha)  # as gsplat's kernels, and ours
    through = torch.cumprod(1.0 - alpha, 0)
    weight = alpha * torch.cat([torch.ones_like(through[:1]), through[:-1]])
    images.append(
      torch.cat([torch.einsum("nhw,nc->hwc", weight, color[order]), weight.sum(0)[..., None]], -1)
    )
  stacked = torch.stack(images)
  return stacked[..., :3], stacked[..., 3:]


@pytest.fixture
def cpu_ops(monkeypatch):
  """gsplat's strategy without CUDA: covariances by its own reference, relocation by the paper."""
  import torch
  from gsplat.cuda import _torch_impl
  from gsplat.strategy import ops

  def relocation(opacities, scales, ratios, binoms):
    shared = 1.0 - (1.0 - opacities) ** (1.0 / ratios)
    integral = torch.zeros_like(opacities)
    for row, n in enumerate(ratios.tolist()):
      for i in range(1, n + 1):
        for k in range(i):
          sign = (-1.0) ** k / math.sqrt(k + 1)
          integral[row] += math.comb(i - 1, k) * sign * shared[row] ** (k + 1)
    return shared, (opacities / integral)[:, None] * scales

  monkeypatch.setattr(ops, "compute_relocation", relocation)
  monkeypatch.setattr(ops, "quat_scale_to_covar_preci", _torch_impl._quat_scale_to_covar_preci)


@pytest.fixture(scope="module")
def tiny():
  """A scene of 48 pixels, our recipe at that size, and the Gaussians that it starts from."""
  if not _ABSENT:
    import torch

    torch.set_flush_denormal(True)  # what is far from a splat is tiny, and denormals are slow
    torch.set_num_threads(1)
  size, views, shrink = quality.SIZES["tiny"]
  trial = quality.built_in_trial("stand_agouti", size, views, None)
  ours = gsplat_quality.our_recipe(shrink)
  return trial, ours, gsplat_quality.starting_points(trial, [0], ours)[0]


def make(tiny, iterations):
  from benchmarks import gsplat_fit

  recipe = gsplat_fit.Recipe(iterations=iterations, relocate_every=5)
  trial, _, start = tiny
  views = gsplat_fit.make_views(trial.scene, "cpu")
  return gsplat_fit.make_parameters(start, "cpu"), views, recipe


class _Begun(Exception):  # noqa: N818
  """Ends a fit before its first step, with the Gaussians that it starts from."""


@pytest.mark.slow
def test_it_starts_where_our_fit_starts(tiny):
  trial, ours, start = tiny

  def begin(index, gaussians):
    raise _Begun(gaussians)

  with pytest.raises(_Begun) as begun:
    quality.fit_trials([trial], [0], ours, begin)
  (expected,) = begun.value.args
  assert start.means.shape == (128, 3) and start.sh.shape == (128, 1, 3)
  for name in ("means", "log_scales", "sh", "logit_opacities"):
    np.testing.assert_allclose(getattr(start, name), getattr(expected, name), atol=2e-4)


@needs_torch
def test_the_photographs_arrive_whole(tiny):
  from benchmarks import gsplat_fit

  scene = tiny[0].scene
  frames = scene.frames.copy()
  frames[0, 0] = 7
  views = gsplat_fit.make_views(dataclasses.replace(scene, frames=frames), "cpu")
  assert views.colors.shape == (6, 48, 48, 3) and views.alphas.shape == (6, 48, 48, 1)
  assert views.seen[1:].min() == 1
  assert views.seen[0, :, 7:].min() == 1 and views.seen[0, :, :7].max() == 0
  fx, fy, cx, cy = np.asarray(scene.cameras.intrinsics)[2]
  np.testing.assert_array_equal(views.intrinsics[2], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


@needs_torch
def test_ssim_is_that_of_our_losses():
  import torch

  from benchmarks import gsplat_fit

  x, y = np.random.default_rng(0).uniform(size=(2, 20, 31, 3)).astype(np.float32)
  found = gsplat_fit.ssim_map(torch.tensor(x)[None], torch.tensor(y)[None]).mean()
  assert float(found) == pytest.approx(float(losses.structural_similarity(x, y)), abs=1e-5)


@needs_torch
def test_the_stand_in_renders_like_ours(tiny):
  """So that the parameters, cameras and colours handed to a rasterizer mean what they should."""
  from jaxsplat_mouse.run.renders import render_rgba

  trial, _, start = tiny
  parameters, _, _ = make(tiny, 1)
  ((_, cameras),) = trial.groups
  found = gsplat_quality.render_rgba(parameters, cameras, dense, "cpu").astype(int)
  expected = render_rgba(start, cameras).astype(int)
  assert found.shape == (2, 48, 48, 4) and found[..., 3].max() > 200
  assert np.abs(found - expected)[..., 3].max() <= 3
  clear = expected[..., 3] > 128
  assert np.abs(found - expected)[clear].max() <= 3


@needs_torch
def test_opacity_decays():
  import torch

  from benchmarks import gsplat_fit

  parameters = {"opacities": torch.nn.Parameter(torch.logit(torch.tensor([0.9, 0.1, 0.004])))}
  gsplat_fit.decay_opacity(parameters, 0.998)
  found = parameters["opacities"].detach().sigmoid().numpy()
  np.testing.assert_allclose(found, np.array([0.9, 0.1, 0.004]) * 0.998, rtol=1e-5)


@needs_torch
def test_dead_gaussians_move_within_the_count(tiny, cpu_ops):
  import torch

  from benchmarks import gsplat_fit

  parameters, views, recipe = make(tiny, 6)  # step 5 relocates
  count = len(parameters["means"])
  with torch.no_grad():
    parameters["opacities"][:20] = -7.0
    parameters["means"][:20] += 5.0
  gsplat_fit.fit(parameters, views, 0, recipe, dense)
  assert all(len(value) == count for value in parameters.values())
  assert float(parameters["opacities"].detach().sigmoid().min()) > recipe.min_opacity
  # They now lie within the animal, where the others are.
  assert float(parameters["means"].detach()[:20].norm(dim=-1).max()) < 2.0

  untouched, _, _ = make(tiny, 5)
  with torch.no_grad():
    untouched["opacities"][:20] = -7.0
    untouched["means"][:20] += 5.0
  gsplat_fit.fit(untouched, views, 0, dataclasses.replace(recipe, iterations=5), dense)
  assert float(untouched["means"].detach()[:20].norm(dim=-1).min()) > 3.0


@needs_torch
def test_noise_moves_the_faint_with_the_position_rate(tiny, cpu_ops):
  import torch

  from benchmarks import gsplat_fit

  still = {name: 0.0 for name in gsplat_fit.Recipe().rates}
  moved = {}
  for rate in (0.0008, 0.0016):
    parameters, _, recipe = make(tiny, 1)
    with torch.no_grad():
      parameters["opacities"][:64] = -7.0
    before = parameters["means"].detach().clone()
    strategy = gsplat_fit.make_strategy(len(before), recipe)
    optimizers = gsplat_fit.make_optimizers(parameters, dataclasses.replace(recipe, rates=still))
    torch.manual_seed(0)
    strategy.step_post_backward(parameters, optimizers, strategy.initialize_state(), 1, {}, lr=rate)
    moved[rate] = (parameters["means"].detach() - before).norm(dim=-1)
  assert float(moved[0.0008][:64].min()) > 0
  assert float(moved[0.0016][64:].max()) < 1e-6  # opaque ones stay
  np.testing.assert_allclose(moved[0.0016][:64], 2 * moved[0.0008][:64], rtol=1e-2, atol=1e-6)


@needs_torch
def test_pixels_that_no_camera_saw_teach_nothing(tiny):
  import torch

  from benchmarks import gsplat_fit

  parameters, views, recipe = make(tiny, 1)
  recipe = dataclasses.replace(recipe, opacity_weight=0.0, scale_weight=0.0)
  blind = dataclasses.replace(views, seen=torch.zeros_like(views.seen))
  blind.seen[:, 0, 0] = 1.0  # a corner without animal
  gsplat_fit.total_loss(parameters, blind, recipe, dense).backward()
  assert float(parameters["features"].grad.abs().max()) < 1e-6
  parameters["features"].grad = None
  gsplat_fit.total_loss(parameters, views, recipe, dense).backward()
  assert float(parameters["features"].grad.abs().max()) > 1e-4


@pytest.mark.slow
@needs_torch
def test_the_fit_improves_the_score(tiny, cpu_ops):

  trial, ours, _ = tiny
  parameters, _, recipe = make(tiny, 20)
  before = gsplat_quality.score(trial, parameters, dense, "cpu")
  rows = list(gsplat_quality.run([trial], [0, 1], ours, recipe, dense, "cpu"))
  assert [(row["recipe"], row["scene"], row["seed"]) for row in rows] == [
    ("gsplat", "stand_agouti", 0),
    ("gsplat", "stand_agouti", 1),
  ]
  assert min(row["fg_psnr"] for row in rows) > before["fg_psnr"] + 1.0, (before, rows)
  assert rows[0]["fg_psnr"] != rows[1]["fg_psnr"]
  table = quality.make_table(rows)
  assert "| scene | gsplat |" in table and "stand_agouti" in table
