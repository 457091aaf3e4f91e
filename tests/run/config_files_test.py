"""Configs by path and by name, and what `from configs import ...` means inside of one."""

from __future__ import annotations

import pathlib
import sys

import pytest

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.run import config_files

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_names_and_paths_are_found(tmp_path: pathlib.Path, monkeypatch) -> None:
  monkeypatch.chdir(tmp_path)
  packaged = str(ROOT / "configs" / "2dgs.py")
  assert config_files.find_config("2dgs") == packaged
  assert config_files.find_config("2dgs:preview") == f"{packaged}:preview"
  (tmp_path / "mine.py").write_text("")
  assert config_files.find_config("mine.py:fast") == "mine.py:fast"
  (tmp_path / "2dgs").write_text("")
  assert config_files.find_config("2dgs") == "2dgs"  # a file that exists wins
  (tmp_path / "3dgs").mkdir()
  assert config_files.find_config("3dgs") == str(ROOT / "configs" / "3dgs.py")


@pytest.mark.parametrize("name", ["4dgs", "configs/2dgs.py", "", "__init__"])
def test_an_unknown_name_lists_the_packaged_ones(
  name: str, tmp_path: pathlib.Path, monkeypatch
) -> None:
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match="expected a path or one of 2dgs, 3dgs, default"):
    config_files.find_config(name)


@pytest.mark.parametrize("name", config_files.packaged_names())
def test_every_packaged_config_has_its_preview(name: str) -> None:
  whole, preview = (config_files.load_config(name + variant) for variant in ("", ":preview"))
  assert preview.fit.iterations < whole.fit.iterations


def test_a_foreign_configs_package_is_not_taken(tmp_path: pathlib.Path, monkeypatch) -> None:
  """A folder of this common name, first on Python's path, changes nothing."""
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "default.py").write_text("raise AssertionError('the wrong one')")
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.delitem(sys.modules, "configs", raising=False)
  monkeypatch.delitem(sys.modules, "configs.default", raising=False)
  assert config_files.load_config("3dgs").fit.model == "3dgs"
  assert "configs" not in sys.modules


def test_a_config_finds_the_ones_beside_it_and_the_packaged_ones(tmp_path: pathlib.Path) -> None:
  folder = tmp_path / "configs"
  folder.mkdir()
  (folder / "base.py").write_text("SEED = 7")
  (folder / "mine.py").write_text(
    "from configs import base, default\n"
    "def get_config(variant=''):\n"
    "  config = default.get_config(variant)\n"
    "  config.seed = base.SEED\n"
    "  return config\n"
  )
  before = sys.modules.get("configs")
  assert config_files.load_config(str(folder / "mine.py")).seed == 7
  assert sys.modules.get("configs") is before
