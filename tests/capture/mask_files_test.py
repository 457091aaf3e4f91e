"""Masks in a folder of their own: found by camera, refused where it is unclear which."""

from __future__ import annotations

import pathlib

import pytest

from jaxsplat_mouse.capture import mask_files
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.errors import InputError


def test_masks_are_found_by_camera(tmp_path: pathlib.Path) -> None:
  (tmp_path / "b").mkdir()
  for name in ("a.mp4", "b/f_10.png", "b/f_2.png"):
    (tmp_path / name).touch()
  found = mask_files.find_masks(tmp_path, ["a", "b"])
  assert found[0] == Stream(video=tmp_path / "a.mp4")
  assert [p.name for p in found[1].images] == ["f_2.png", "f_10.png"]
  with pytest.raises(InputError, match=r"c: 0 videos and 0 images; expected c.mp4"):
    mask_files.find_masks(tmp_path, ["a", "c"])
  with pytest.raises(InputError, match="no such folder"):
    mask_files.find_masks(tmp_path / "none", ["a"])
