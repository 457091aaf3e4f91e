"""The command: flags, help, errors in one line, and kill -9 at any moment."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from jaxsplat_mouse.commands import main
from tests.run_fixtures import CONFIG_FILE, results, write_mice

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(*arguments: object) -> list[str]:
  return [sys.executable, "-m", "jaxsplat_mouse.main", *map(str, arguments)]


def call(*arguments: object, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess[str]:
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.run(
    command(*arguments), cwd=cwd, env=env, capture_output=True, text=True, timeout=300
  )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The small configuration as a file, and two scenes beside it."""
  folder = tmp_path_factory.mktemp("tiny")
  (folder / "tiny.py").write_text(CONFIG_FILE)
  write_mice(folder / "recording", 2)
  return folder


def tiny_flags(tiny: pathlib.Path, workdir: pathlib.Path) -> list[str]:
  return [
    f"--config={tiny / 'tiny.py'}",
    f"--config.data.input={tiny / 'recording'}",
    f"--workdir={workdir}",
  ]


def test_help_teaches() -> None:
  found = call("--help")
  assert found.returncode == 0
  for part in ("--config=2dgs", "--workdir", ":preview", "Exit status", "Ctrl-C"):
    assert part in found.stdout
  assert not found.stderr


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["--config.fit.iteratons=5"], "fit.iteratons: unknown key; did you mean fit.iterations?"),
    (["--config.rendr.image_size=5"], "rendr.image_size: unknown key; did you mean render.image_"),
    (
      ["--config=configs/4dgs.py"],
      "--config=configs/4dgs.py: no such file; expected a path or one",
    ),
    (["--config=4dgs"], "--config=4dgs: no such file; expected a path or one of 2dgs, 3dgs, "),
    (["--config=configs/2dgs.py:tiny"], "variant 'tiny': expected preview"),
    (["--config=3dgs:tiny"], "variant 'tiny': expected preview"),
    (["--config.fit.iterations=many"], "--config.fit.iterations=many: invalid literal for int"),
    (["--config.fit.model=4dgs"], "fit.model: '4dgs', expected one of"),
    (["--config.data.input=/nowhere"], "/nowhere: no such file or folder; expected a scene"),
    (["--config.report.contact_sheets=maybe"], "--config.report.contact_sheets=maybe: "),
    (["--workdr=x"], "Unknown command line flag 'workdr'"),
    (["scene"], "scene: unexpected argument; expected --flag=value"),
    (["--workdir=/dev/null/w"], "/dev/null/w: not writable"),
  ],
)
def test_what_cannot_start_is_one_line_and_status_1(
  arguments: list[str], expected: str, tmp_path: pathlib.Path
) -> None:
  found = call(f"--workdir={tmp_path / 'w'}", *arguments)
  assert found.returncode == 1
  assert found.stderr.startswith(f"error: {expected}"), found.stderr
  assert found.stderr.count("\n") == 1 and not found.stdout
  assert not (tmp_path / "w").exists()


def test_default_workdirs_differ_by_config() -> None:
  assert main.default_workdir("configs/2dgs.py") == "runs/2dgs"
  assert main.default_workdir("configs/2dgs.py:preview") == "runs/2dgs_preview"
  assert main.default_workdir("/a/b/mine.py") == "runs/mine"


def wait_for(pattern: str, folder: pathlib.Path, process: subprocess.Popen) -> None:
  deadline = time.time() + 200
  while process.poll() is None and time.time() < deadline and not list(folder.glob(pattern)):
    time.sleep(0.02)


# What appears first, next and last on the disk.
MOMENTS = ("checkpoints/*/states/[0-9]*", "fits/mouse_0", "dataset/mouse_0")


def test_kill_9_loses_nothing(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """Killed in the fit, after it and between two scenes; the files are those of a calm run."""
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  calm = call(*tiny_flags(tiny, tmp_path / "calm"))
  assert calm.returncode == 0, calm.stderr
  workdir = tmp_path / "killed"
  process = None
  for moment in MOMENTS:
    process = subprocess.Popen(command(*tiny_flags(tiny, workdir)), cwd=ROOT, env=env)
    wait_for(moment, workdir, process)
    process.kill()
    process.wait()
    for folder in workdir.glob("dataset/mouse_[0-9]"):  # whole, or not there
      assert len(list(folder.rglob("*.*"))) == 5
  found = call(*tiny_flags(tiny, workdir))
  assert found.returncode == 0, found.stderr
  assert results(workdir) == results(tmp_path / "calm")
  assert not list(workdir.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_9_at_random_moments(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """Fifty kills; a run that came through is compared, and another one begun."""
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  for name in ("compiles", "calm"):
    began = time.monotonic()
    calm = call(*tiny_flags(tiny, tmp_path / name))
    lasted = time.monotonic() - began
    assert calm.returncode == 0, calm.stderr
  expected = results(tmp_path / "calm")
  workdir, rng, kills = tmp_path / "killed", random.Random(0), 0
  while kills < 50:
    process = subprocess.Popen(command(*tiny_flags(tiny, workdir)), cwd=ROOT, env=env)
    try:
      process.wait(rng.uniform(0.1, 1.1) * lasted)
    except subprocess.TimeoutExpired:
      process.kill()
      kills += 1
    if process.wait() == 0:
      assert results(workdir) == expected
      shutil.rmtree(workdir)
    for folder in workdir.glob("dataset/mouse_[0-9]"):
      assert len(list(folder.rglob("*.*"))) == 5
  assert call(*tiny_flags(tiny, workdir)).returncode == 0
  assert results(workdir) == expected


@pytest.mark.slow
def test_a_disk_that_is_really_full(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """A file system of 160 kB: the run ends with status 3 or 1, and nothing is half there."""
  small = tmp_path / "small"
  small.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)], capture_output=True
  )
  if mounted.returncode:
    pytest.skip("needs the right to mount a file system")
  try:
    found = call(*tiny_flags(tiny, small / "w"))
    assert found.returncode in (1, 3), found.stderr
    assert "No space left" in found.stdout + found.stderr
    assert "jaxsplat_mouse/" not in found.stderr.replace(str(small), "")  # no traceback of ours
    for folder in small.glob("w/dataset/mouse_[0-9]"):
      assert len(list(folder.rglob("*.*"))) == 5
  finally:
    subprocess.run(["umount", str(small)], check=True)


def test_ctrl_c_is_one_line_and_status_130(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  process = subprocess.Popen(
    command(*tiny_flags(tiny, tmp_path / "w"), "--config.fit.iterations=2000"),
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for("checkpoints/*/states/[0-9]*", tmp_path / "w", process)
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=200)
  assert process.returncode == 130, err
  assert out.splitlines()[-1] == "Stopped by Ctrl-C. The same command continues from here."
  assert "Traceback" not in err


def test_it_works_from_another_folder(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """A config is found by its path, and finds the others beside it."""
  env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  code = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'main'; "
    "import runpy; runpy.run_module('jaxsplat_mouse.main', run_name='__main__')"
  )
  (tmp_path / "package").mkdir()
  (tmp_path / "package" / "jaxsplat_mouse").symlink_to(ROOT / "jaxsplat_mouse")
  found = subprocess.run(
    [
      *(sys.executable, "-c", code, str(tmp_path / "package")),
      *(f"--config={ROOT / 'configs' / '3dgs.py'}", "--config.data.input=/nowhere"),
    ],
    cwd=tmp_path,
    env=env,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 1
  assert found.stderr.startswith("error: /nowhere: no such file or folder"), found.stderr


def test_a_bad_scene_alone_is_one_line_and_status_1(
  tiny: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  scene = tmp_path / "scene"
  (scene / "images").mkdir(parents=True)
  found = call(f"--config={tiny / 'tiny.py'}", f"--config.data.input={scene}", "--workdir=w",
               cwd=tmp_path)  # fmt: skip
  assert found.returncode == 1
  assert found.stdout.count("\n") == 1 and "opencv_cameras.json: no such file" in found.stdout


def test_no_such_device_is_one_line(tmp_path: pathlib.Path) -> None:
  env = {**os.environ, "JAX_PLATFORMS": "nosuch"}
  found = subprocess.run(
    command(f"--workdir={tmp_path / 'w'}"), cwd=ROOT, env=env, capture_output=True, text=True
  )
  assert found.returncode == 1
  assert found.stderr.startswith("error: JAX_PLATFORMS: no device to run on"), found.stderr
