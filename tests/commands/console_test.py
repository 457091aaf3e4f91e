"""What commands share: a help that loads nothing heavy, one convention, errors in one line."""

from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console, manifest, validate

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "jaxsplat_mouse"
COMMANDS = sorted(p.stem for p in (PACKAGE / "commands").glob("[a-z]*.py") if p.stem != "console")
HEAVY = {"jax", "jaxlib", "ray", "orbax", "optax", "PIL", "rich", "scipy", "skimage", "cv2", "av"}


def test_the_commands_are_found() -> None:
  assert {"main", "render", "evaluate", "validate", "prepare", "mesh", "manifest", "view"} <= {
    *COMMANDS
  }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_nothing_heavy(name: str) -> None:
  """`--help` prints the docstring and every flag before anything that takes time is imported."""
  code = (
    "import runpy, sys; sys.argv = ['x', '--help']\n"
    f"try: runpy.run_module('jaxsplat_mouse.{name}', run_name='__main__')\n"
    "except SystemExit as end: print(end.code, *sys.modules, sep='\\n', file=sys.stderr)"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  status, *loaded = done.stderr.splitlines()
  assert status == "0", done.stderr
  assert not HEAVY & set(loaded)
  command = importlib.import_module(f"jaxsplat_mouse.commands.{name}")
  flags = FlagValues()
  command.define_flags(flags)
  assert done.stdout.startswith(str(command.__doc__).strip()) and "Exit status" in done.stdout
  assert all(f"  --{flag}\n" in done.stdout for flag in flags)
  assert all(len(line) <= 100 for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_entry_file_only_starts_its_command(name: str) -> None:
  tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
  assert ast.unparse(tree.body[1:]) == (
    f"from jaxsplat_mouse.commands import console, {name}\n"
    f"if __name__ == '__main__':\n    console.start({name})"
  )


def test_nothing_else_is_run_as_a_program() -> None:
  entries = {f"{name}.py" for name in COMMANDS}
  found = {
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob("*.py")
    if "__name__ ==" in path.read_text(encoding="utf-8")
  }
  assert found == entries


def test_several_commands_run_in_one_process(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert console.run_command(validate, ["validate", str(tmp_path / "nowhere")]) == 1
  assert "no such folder; expected a dataset" in capsys.readouterr().out
  assert console.run_command(manifest, ["manifest", str(tmp_path), "--output=t.csv"]) == 1
  assert "no manifest.jsonl; expected the folder of a run" in capsys.readouterr().err
  assert console.run_command(validate, ["validate", "--help"]) == 0


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    ([], "DATASET: missing; see --help"),
    (["a", "b"], "b: unexpected argument; expected one DATASET"),
    (["a", "--veiws=3"], "Unknown command line flag 'veiws'. Did you mean: views ?"),
    (["a", "--views=three"], "--views=three: invalid literal for int() with base 10: 'three'"),
  ],
)
def test_arguments_that_cannot_be_used_are_one_line(
  arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
  assert console.run_command(validate, ["validate", *arguments]) == console.FAILED
  assert capsys.readouterr().err == f"error: {problem}\n"


def test_flags_may_be_spelled_with_dashes(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  given = [str(tmp_path), "--may-touch-edge", "--max-faults=0"]
  assert console.run_command(validate, ["validate", *given]) == 1
  assert "0 views" in capsys.readouterr().out
