"""What an interval of steps comes to; whole trainings are in `tests/run/training_job_test.py`."""

from __future__ import annotations

import math

import numpy as np

from jaxsplat_mouse.learn.training.trainer import summarize


def test_steps_that_were_not_taken_leave_the_means_alone():
  records = [
    {"loss": np.float32(1.0), "overflow": np.int32(0), "skipped": np.bool_(False)},
    {"loss": np.float32(np.nan), "overflow": np.int32(5), "skipped": np.bool_(True)},
    {"loss": np.float32(3.0), "overflow": np.int32(2), "skipped": np.bool_(True)},
  ]
  assert summarize(records) == {"loss": 2.0, "overflow": 5.0, "skipped": 2.0}
  assert math.isnan(summarize(records[1:2])["loss"])
