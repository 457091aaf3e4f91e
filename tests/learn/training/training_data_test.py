"""What `data.datasets` says."""

from __future__ import annotations

import pytest

from jaxsplat_mouse.learn.training import training_data
from jaxsplat_mouse.learn.training.training_data import DatasetShare, load_datasets, parse_datasets
from tests.io.file_fixtures import refused


def test_datasets_and_their_weights_are_read():
  shares = parse_datasets("data.datasets", "a/train.txt@0.7, mice:3@.3,b@c/list.txt")
  assert shares == (
    DatasetShare(name="a/train.txt", weight=0.7),
    DatasetShare(name="mice:3", weight=0.3),
    DatasetShare(name="b@c/list.txt", weight=1.0),
  )


@pytest.mark.parametrize("text", ["", "a,,b", "a@0", "a@0.0"])
def test_what_is_no_mixture_is_refused(text):
  with pytest.raises(ValueError, match=r"data\.x: .*, expected LIST or LIST@WEIGHT"):
    parse_datasets("data.x", text)


def test_held_out_animals_are_others(monkeypatch):
  made = []
  monkeypatch.setattr(
    training_data.built_in_scenes, "make_scenes", lambda kind, seeds, size: made.append(seeds)
  )
  shares = parse_datasets("data.datasets", "mice:5")
  assert load_datasets(shares, 32).weights == (1.0,)
  load_datasets(shares, 32, held_out=True)
  assert [len(seeds) for seeds in made] == [5, 5]
  assert not set(made[0]) & set(made[1])


def test_a_missing_list_is_named(tmp_path):
  shares = parse_datasets("data.datasets", f"{tmp_path / 'no.txt'}")
  assert "cannot be read" in refused(lambda: load_datasets(shares, 32), "no.txt", "")
