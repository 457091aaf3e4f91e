"""The counts behind the network's MFU."""

from __future__ import annotations

import pytest

from benchmarks import train_speed
from jaxsplat_mouse.learn.gslrm.architecture import SIZES


def test_operations_of_the_network():
  """6 operations a parameter and token, and 12 T² d a block for attention."""
  shape = SIZES["facelift"]
  parameters = 12 * shape.depth * shape.width**2
  found = train_speed.network_operations(shape, 4096)
  attention = 12 * shape.depth * 4096**2 * shape.width
  assert found == pytest.approx(6 * parameters * 4096 + attention)
