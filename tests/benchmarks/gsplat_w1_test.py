"""What can be tested of the gsplat benchmark without a GPU."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import losses

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_without_torch_it_says_so_in_one_line(tmp_path: pathlib.Path) -> None:
  (tmp_path / "torch.py").write_text("raise ImportError('none here')\n")
  found = subprocess.run(
    [sys.executable, "-m", "benchmarks.gsplat_w1"],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 1
  assert found.stderr == "gsplat_w1: needs torch (none here)\n"


def test_its_ssim_is_ours() -> None:
  torch = pytest.importorskip("torch")
  from benchmarks import gsplat_w1

  rng = np.random.default_rng(0)
  x, y = rng.uniform(size=(2, 2, 3, 24, 32)).astype(np.float32)
  found = gsplat_w1.conv_ssim(torch, torch.tensor(x), torch.tensor(y))
  channels_last = lambda a: jnp.moveaxis(jnp.asarray(a), 1, -1)
  ours = [
    losses.structural_similarity(a, b)
    for a, b in zip(channels_last(x), channels_last(y), strict=True)
  ]
  assert float(found) == pytest.approx(float(np.mean(ours)), abs=1e-5)
