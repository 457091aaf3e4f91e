"""The train command: what it refuses."""

from __future__ import annotations

import pytest

from jaxsplat_mouse.commands import console, main, train


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    ([], "--workdir: missing; see --help"),
    (["--config.optimizer.stepps=3"], "optimizer.stepps: unknown key; did you mean optimizer.step"),
    (["--config=gslrm:tiny", "--config.optimizer.steps=0"], "optimizer.steps: 0, expected at lea"),
    (["--config=2dgs"], "batch: unknown key; expected those of configs/gslrm.py"),
    (["--config=no"], "--config=no: no such file; expected a path or one of 2dgs"),
  ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, capsys, arguments, problem):
  where = [f"--workdir={tmp_path / 'w'}"] if arguments else []
  assert console.run_command(train, ["train", *arguments, *where]) == console.FAILED
  error = capsys.readouterr().err
  assert error.startswith(f"error: {problem}"), error
  assert error.count("\n") == 1
  assert not (tmp_path / "w").exists()


def test_a_fit_refuses_the_config_of_a_training(tmp_path, capsys):
  arguments = ["--config=gslrm:tiny", f"--workdir={tmp_path / 'w'}"]
  assert console.run_command(main, ["main", *arguments]) == console.FAILED
  assert capsys.readouterr().err.startswith("error: architecture: unknown key")
