"""Sizes of images from their headers."""

from __future__ import annotations

from jaxsplat_mouse.io import images
from tests.io.file_fixtures import refused, write_huge_header, write_image


def test_sizes_are_read_from_headers_without_decoding(tmp_path):
  assert images.read_image_size(write_image(tmp_path / "a.png", (7, 5)), "f") == (7, 5)
  assert images.read_image_size(write_huge_header(tmp_path / "b.png", 9000), "f") == (9000, 9000)
  for side in (20_000, 2**31 - 1):
    refused(
      lambda side=side: images.read_image_size(write_huge_header(tmp_path / "b.png", side), "f"),
      "b.png",
      "f",
    )
