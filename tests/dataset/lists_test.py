"""Lists: absolute lines, a split that keeps recordings whole, mixtures by weight."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.dataset import lists
from jaxsplat_mouse.errors import InputError
from tests.dataset.dataset_fixtures import dataset_of

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_lists_are_absolute_and_without_blank_lines(tmp_path: pathlib.Path, monkeypatch):
  dataset_of(tmp_path / "d", "a", "b", "c")
  monkeypatch.chdir(tmp_path)
  lists.write_lists("d", ["c", "a"], ["b"])
  assert (tmp_path / "d/train.txt").read_text() == f"{tmp_path}/d/c\n{tmp_path}/d/a\n"
  assert (tmp_path / "d/val.txt").read_text() == f"{tmp_path}/d/b\n"
  lists.write_lists("d", ["a"], [], relative=True)
  assert (tmp_path / "d/train.txt").read_text() == "a\n"
  assert (tmp_path / "d/val.txt").read_text() == ""


def test_lists_that_would_lie_are_refused(tmp_path: pathlib.Path):
  dataset_of(tmp_path, "a", "b")
  lists.write_lists(tmp_path, ["a"], ["b"])
  before = (tmp_path / "train.txt").read_text()
  for train, val, problem in [
    (["a", "a"], [], "listed twice"),
    (["a"], ["a"], "listed twice"),
    (["a", "none"], [], "no such scene"),
  ]:
    with pytest.raises(InputError, match=problem):
      lists.write_lists(tmp_path, train, val)
  assert (tmp_path / "train.txt").read_text() == before
  strange = dataset_of(tmp_path / "line\nbreak", "a")
  with pytest.raises(InputError, match="line breaks"):
    lists.write_lists(strange, ["a"], [])


def test_the_split_is_deterministic_and_near_the_fraction():
  names = [f"scene_{i:04d}" for i in range(200)]
  train, val = lists.split_scenes(names)
  assert (train, val) == lists.split_scenes(list(reversed(names)))
  assert len(val) == 20
  assert sorted(train + val) == names
  assert val != lists.split_scenes(names, seed=1)[1]
  # drawn, not the first or last or every tenth
  assert len(set(np.diff([names.index(v) for v in val]))) > 4


def test_recordings_are_never_divided():
  recordings = {f"s{i:03d}": f"recording {i // 10}" for i in range(120)}
  train, val = lists.split_scenes(recordings, val_fraction=0.2)
  sides = [{recordings[name] for name in side} for side in (train, val)]
  assert not sides[0] & sides[1]
  assert 20 <= len(val) <= 30


@pytest.mark.parametrize(
  ("counts", "fraction", "held_out"),
  [([1], 0.1, 0), ([5], 0.5, 0), ([1, 1], 0.1, 1), ([90, 5, 5], 0.1, 10), ([90, 10], 0.1, 10),
   ([50, 50], 0.1, 50), ([1, 1, 1], 0.0, 0), ([4, 4], 0.99, 4)],
)  # fmt: skip
def test_small_splits(counts, fraction, held_out):
  recordings = {f"{r}_{i}": str(r) for r, n in enumerate(counts) for i in range(n)}
  train, val = lists.split_scenes(recordings, val_fraction=fraction)
  assert len(val) == held_out
  assert len(train) + len(val) == len(recordings)


def test_mixed_lists_hold_each_scene_once_at_least(tmp_path: pathlib.Path):
  for name, count in (("few", 3), ("many", 50)):
    for i in range(count):
      (tmp_path / name / str(i)).mkdir(parents=True)
    (tmp_path / f"{name}.txt").write_text("".join(f"{name}/{i}\n" for i in range(count)))
  lists.write_mixed_list(
    tmp_path / "mixed.txt", {tmp_path / "few.txt": 0.9, tmp_path / "many.txt": 0.1}
  )
  lines = (tmp_path / "mixed.txt").read_text().splitlines()
  few = [line for line in lines if "/few/" in line]
  assert len(lines) == 500
  assert len(few) == 450
  assert len(set(lines)) == 53
  with pytest.raises(InputError, match=r"none\.txt"):
    lists.write_mixed_list(tmp_path / "mixed.txt", {tmp_path / "none.txt": 1.0})


def test_lists_are_read(tmp_path: pathlib.Path):
  scene_dir = dataset_of(tmp_path, "scene") / "scene"
  other = dataset_of(tmp_path / "elsewhere", "b") / "b"
  (tmp_path / "list.txt").write_text(f"scene\n{other}\n")
  assert lists.read_list(tmp_path / "list.txt") == [scene_dir, other]
  for text, field, problem in [
    ("scene\n\nscene\n", "line 2", "blank"),
    ("scene\nnone\n", "line 2", "no such folder"),
    ("", "", "empty"),
  ]:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
      lists.read_list(tmp_path / "list.txt")
    assert caught.value.field == field
