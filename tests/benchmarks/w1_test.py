"""W1 runs at a tiny size on a CPU, whole and by stage."""

from __future__ import annotations

import jax
import pytest

from benchmarks import scaling, w1, workload


def test_an_iteration_steps_and_fits():
  setting = workload.Setting(
    flat=True, scenes=1, splats=60, size=24, entries=40.0, implementation="xla"
  )
  result = w1.time_whole(setting, 2)
  assert result["whole_ms"] > 0 and result["per_scene_ms"] == result["whole_ms"]


@pytest.mark.slow
def test_stages_run_interpreted():
  setting = workload.Setting(flat=False, scenes=1, splats=40, size=16, entries=40.0)
  assert jax.default_backend() == "cpu"
  result = w1.time_stages(setting, 1)
  assert {"binning", "forward", "backward_rows", "photometric"} <= set(result)
  assert 0 < result["walked_m"] <= result["kept_m"]


def test_scaling_starts_from_one_device():
  setting = workload.Setting(
    flat=False, scenes=1, splats=60, size=24, entries=40.0, implementation="xla"
  )
  (row,) = scaling.measure(setting, 2, [1], rounds=1)
  assert row["devices"] == 1 and row["speed_up"] == 1.0 and row["scene_iterations_per_s"] > 0
