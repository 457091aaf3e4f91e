"""The workdir: one run at a time, one configuration for good."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.run import workdir as workdir_module
from jaxsplat_mouse.run.config_schema import upgrade
from jaxsplat_mouse.run.workdir import Workdir

# A few keys of a configuration of this version, those that earlier versions lack among them.
FLAT = upgrade({"seed": 0, "fit.iterations": 10, "render.image_size": 64, "batch.scenes": "auto"})

HOLDER = """
import sys, time
from jaxsplat_mouse.run.workdir import Workdir
with Workdir(sys.argv[1]).locked():
  print("held", flush=True)
  time.sleep(60)
"""


def make(path: pathlib.Path) -> Workdir:
  workdir = Workdir(path)
  workdir.make()
  return workdir


def start_holder(path: pathlib.Path) -> subprocess.Popen:
  root = pathlib.Path(__file__).resolve().parents[2]
  holder = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(path)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": str(root)},
  )
  assert holder.stdout is not None and holder.stdout.readline() == "held\n"
  return holder


def test_a_second_run_is_refused_and_a_dead_one_is_not(
  tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
  workdir = make(tmp_path / "w")
  holder = start_holder(workdir.path)
  try:
    expected = f"in use by process {holder.pid} on .* since"
    with pytest.raises(InputError, match=expected), workdir.locked():
      pass
  finally:
    holder.kill()
    holder.wait()
  with workdir.locked():
    held = json.loads(workdir.lock_file.read_text())
    assert held["pid"] == os.getpid()
  assert f"taken over from process {holder.pid}" in caplog.text
  caplog.clear()
  with workdir.locked():
    pass
  assert "taken over" not in caplog.text


def test_the_lock_is_free_after_an_error(tmp_path: pathlib.Path) -> None:
  workdir = make(tmp_path / "w")
  with pytest.raises(RuntimeError), workdir.locked():
    raise RuntimeError
  with workdir.locked():
    pass


def test_a_changed_fit_is_refused_with_every_differing_key(tmp_path: pathlib.Path) -> None:
  workdir = make(tmp_path / "w")
  assert workdir.record_run(FLAT, "configs/a.py", {}) == {}
  before = workdir.config_file.read_bytes()
  with pytest.raises(ConfigError, match=r"fit.iterations 10 -> 20, seed 0 -> 1; expected") as error:
    workdir.record_run({**FLAT, "seed": 1, "fit.iterations": 20}, "configs/a.py", {})
  assert "batch" not in str(error.value)
  assert workdir.config_file.read_bytes() == before


def test_how_the_work_is_done_may_change_and_renders_are_named(tmp_path: pathlib.Path) -> None:
  workdir = make(tmp_path / "w")
  workdir.record_run(FLAT, "configs/a.py", {})
  changed = workdir.record_run(
    {**FLAT, "batch.scenes": "4", "render.image_size": 32}, "configs/a.py", {"kind": "cpu"}
  )
  assert changed == {"render.image_size": (64, 32)}
  written = json.loads(workdir.config_file.read_text())
  assert written["config"]["render.image_size"] == 32
  assert len(written["runs"]) == 2
  assert {"command", "versions", "device", "started"} <= set(written["runs"][1])
  assert {"jax", "jaxsplat-mouse", "python"} <= set(written["runs"][1]["versions"])


def test_an_unwritable_place_is_told_in_one_line(tmp_path: pathlib.Path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="file/w: not writable"):
    Workdir(tmp_path / "file" / "w").make()


@pytest.mark.parametrize("text", ["", "[]", '{"config": 3}', "{"])
def test_a_broken_config_file_is_told(tmp_path: pathlib.Path, text: str) -> None:
  workdir = make(tmp_path / "w")
  workdir.config_file.write_text(text)
  with pytest.raises(InputError, match=r"config\.json: not readable"):
    workdir.record_run(FLAT, "configs/a.py", {})


def test_a_folder_without_a_run_is_told(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match="expected the --workdir of a run"):
    Workdir(tmp_path).read_config()


@pytest.mark.parametrize(
  ("text", "kept"),
  [("", ""), ('{"a": 1}\n', '{"a": 1}\n'), ('{"a": 1}\n{"b', '{"a": 1}\n'), ('{"b', "")],
)
def test_a_cut_line_of_the_metrics_goes(tmp_path: pathlib.Path, text: str, kept: str) -> None:
  workdir = make(tmp_path / "w")
  workdir.metrics_file.write_text(text)
  workdir.make()
  assert workdir.metrics_file.read_text() == kept


def test_left_overs_of_killed_writers_go(tmp_path: pathlib.Path) -> None:
  workdir = make(tmp_path / "w")
  dead = subprocess.Popen([sys.executable, "-c", ""])
  dead.wait()
  from jaxsplat_mouse.io import atomic

  left = workdir.dataset / f"{atomic.PREFIX}scene@{atomic._HOST}@{dead.pid}@00ff00ff"
  left.mkdir()
  workdir.make()
  assert not left.exists()


@pytest.mark.parametrize(
  ("argv", "command"),
  [
    (["/x/jaxsplat_mouse/main.py", "--a=b c"], "python -m jaxsplat_mouse.main '--a=b c'"),
    (["my_script.py", "1"], "my_script.py 1"),
  ],
)
def test_the_command_is_recorded_as_it_can_be_given_again(argv: list[str], command: str) -> None:
  assert workdir_module._command(argv) == command
