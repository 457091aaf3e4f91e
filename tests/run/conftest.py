"""Inputs and one undisturbed run that the tests of the run share."""

from __future__ import annotations

import pathlib

import pytest

from jaxsplat_mouse.run import job
from tests.run_fixtures import results, tiny_config, write_mice


@pytest.fixture(scope="session")
def mice(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A folder of two scenes."""
  return write_mice(tmp_path_factory.mktemp("input") / "recording", 2)


@pytest.fixture(scope="session")
def undisturbed_workdir(
  mice: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """A run of the two scenes that nothing stopped."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  assert job.run(tiny_config(str(mice)), workdir) == 0
  return workdir


@pytest.fixture(scope="session")
def undisturbed(undisturbed_workdir: pathlib.Path) -> dict[str, str]:
  """Hashes of what it made."""
  return results(undisturbed_workdir)
