"""Workdirs of earlier versions: configurations are read, fits kept, runs continued."""

from __future__ import annotations

import json
import pathlib
import tarfile

import pytest

from jaxsplat_mouse.dataset.scene_records import latest_records
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.run import config_schema, fit_store, job
from jaxsplat_mouse.run.config_keys import flatten
from jaxsplat_mouse.run.settings import Settings
from tests.run_fixtures import tiny_config

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "workdir_0.1.0.tar.gz"


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
  """A workdir that version 0.1.0 left: one scene done, one fitted, one stopped at step 10 of 20."""
  with tarfile.open(GOLDEN) as archive:
    archive.extractall(tmp_path / "w", filter="data")
  return tmp_path / "w"


def same_config():
  config = tiny_config("")
  config.data.mice = 3
  config.batch.scenes = "1"
  config.report.contact_sheets = False
  return config


def test_a_workdir_of_the_version_before_goes_on(
  old: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  kept = [*old.glob("dataset/mouse_0000/**/*"), *old.glob("fits/mouse_000[01]/*")]
  before = {path: path.read_bytes() for path in kept if path.is_file()}
  assert len(before) == 9
  assert job.run(same_config(), old) == 0
  printed = capsys.readouterr().out
  assert "1 of 3 scenes are done already" in printed
  assert "mouse_0002: goes on at iteration 10 of 20" in printed
  assert {path: path.read_bytes() for path in before} == before
  assert {r.status for r in latest_records(old / "dataset").values()} == {"done"}
  assert len(list(old.glob("dataset/*/images/cam_000.png"))) == 3
  assert json.loads((old / "config.json").read_text())["schema"] == config_schema.SCHEMA


def test_a_removed_setting_that_had_an_effect_is_named(old: pathlib.Path) -> None:
  file = old / "config.json"
  record = json.loads(file.read_text())
  record["config"]["fit.hull_inside"] = 0.1
  file.write_text(json.dumps(record))
  with pytest.raises(ConfigError, match=r"fit\.hull_inside 0\.1 -> null"):
    job.run(same_config(), old)


@pytest.mark.parametrize(("was", "now"), [(False, "off"), (True, "auto")])
def test_warm_starts_were_a_truth_value_and_count_for_no_fit(was: bool, now: str) -> None:
  assert config_schema.upgrade({"fit.warm_start": was})["fit.warm_start"] == now
  config = same_config()
  keys = set()
  for value in ("off", "auto"):
    config.fit.warm_start = value
    keys.add(fit_store.fit_key(Settings.from_config(config), None))
  assert len(keys) == 1


def test_new_settings_leave_the_keys_of_old_fits(monkeypatch: pytest.MonkeyPatch) -> None:
  """A key that came later counts only where it differs from what it was before it existed."""
  flat = flatten(same_config())
  older = {key: value for key, value in flat.items() if key != "fit.dropout"}
  settings = Settings.from_config(same_config())
  monkeypatch.setattr(config_schema, "ADDED", {"fit.dropout": 0.05})
  assert config_schema.upgrade(older) == flat
  usual = config_schema.key_view("fit", {"iterations": 20, "dropout": 0.05})
  assert "dropout" not in usual and usual["iterations"] == 20
  assert config_schema.key_view("fit", {"dropout": 0.1})["dropout"] == 0.1
  assert fit_store.fit_key(settings, None)


def test_settings_that_belong_to_a_switch_that_was_off_have_no_effect() -> None:
  flat = {"fit.exposure": False, "fit.exposure_rate": 0.5, "fit.iterations": 3}
  assert config_schema.upgrade(flat) == {**config_schema.ADDED, "fit.iterations": 3}
  on = {"fit.exposure": True, "fit.exposure_rate": 0.5}
  assert config_schema.upgrade(on) == {**config_schema.ADDED, **on}


def test_every_key_that_is_gone_had_no_effect_in_the_golden_run(old: pathlib.Path) -> None:
  """The hash of a fit of version 0.1.0 is what this version computes for the same settings."""
  stored = json.loads((old / "fits" / "mouse_0000" / "scene.json").read_text())["fit_key"]
  assert fit_store.fit_key(Settings.from_config(same_config()), None) == stored
