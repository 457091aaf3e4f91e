"""Batches on a local Ray cluster: the bytes of a local run, with a worker killed on the way too."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.run import job
from tests.run_fixtures import CONFIG_FILE, results, tiny_config, write_mice

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Four scenes."""
  return write_mice(tmp_path_factory.mktemp("input") / "recording", 4)


@pytest.fixture(scope="module")
def local(four: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
  """Hashes of what a local run makes of them."""
  workdir = tmp_path_factory.mktemp("local")
  assert job.run(tiny_config(str(four)), workdir) == 0
  return results(workdir)


def start(four: pathlib.Path, folder: pathlib.Path, *more: str) -> subprocess.Popen[str]:
  """The command, in a process of its own: Ray's are its children."""
  (folder / "tiny.py").write_text(CONFIG_FILE)
  command = [
    *(sys.executable, "-m", "jaxsplat_mouse.main", f"--config={folder / 'tiny.py'}"),
    *(f"--config.data.input={four}", f"--workdir={folder / 'w'}"),
    *("--config.execution.engine=ray", "--config.execution.workers=2", *more),
  ]
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  env.pop("RAY_ADDRESS", None)
  return subprocess.Popen(
    command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes_though_a_worker_is_killed(
  four: pathlib.Path, local: dict[str, str], tmp_path: pathlib.Path
) -> None:
  pytest.importorskip("ray", reason="needs the extra `cluster`")
  psutil = pytest.importorskip("psutil")
  process = start(four, tmp_path)
  deadline = time.monotonic() + 400
  states = "checkpoints/*/states/[0-9]*"
  while process.poll() is None and not list((tmp_path / "w").glob(states)):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  children = psutil.Process(process.pid).children(recursive=True)
  workers = [c for c in children if c.name().startswith("ray::Remote")]
  assert len(workers) == 2
  workers[0].send_signal(signal.SIGKILL)
  out, err = process.communicate(timeout=600)
  assert process.returncode == 0, out + err
  assert "A worker died with" in out
  assert results(tmp_path / "w") == local
  records = scene_records.latest_records(tmp_path / "w" / "dataset")
  assert {r.status for r in records.values()} == {"done"} and len(records) == 4
  assert len((tmp_path / "w" / "dataset" / "train.txt").read_text().splitlines()) == 4


def test_without_ray_the_extra_is_named(
  four: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "ray", None)
  config = tiny_config(str(four))
  config.execution.engine = "ray"
  with pytest.raises(ConfigError, match=r"pip install 'jaxsplat-mouse\[cluster\]'"):
    job.run(config, tmp_path / "w")


def test_an_unknown_engine_is_told(four: pathlib.Path, tmp_path: pathlib.Path) -> None:
  config = tiny_config(str(four))
  config.execution.engine = "slurm"
  with pytest.raises(ConfigError, match=r"execution\.engine: 'slurm', expected 'local' or 'ray'"):
    job.run(config, tmp_path / "w")
