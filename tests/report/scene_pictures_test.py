"""Contact sheets and colours of maps."""

from __future__ import annotations

import pathlib

import numpy as np

from jaxsplat_mouse.report import contact_sheet, scene_pictures
from jaxsplat_mouse.report.contact_sheet import SheetRow


def flat(color: tuple[int, int, int], height: int = 30, width: int = 20) -> np.ndarray:
  return np.full((height, width, 3), color, np.uint8)


def test_a_sheet_shows_every_view_in_its_place() -> None:
  rows = [SheetRow("a", [flat((255, 0, 0)), flat((0, 255, 0))]), SheetRow("b", [flat((0, 0, 255))])]
  sheet = np.asarray(contact_sheet.draw_sheet("scene", "notes", rows, ["one", "two"], cell=60))
  assert (sheet[0, 0] == 255).all() and (sheet[-1, -1] == 255).all()
  found = {
    name: np.argwhere((sheet == color).all(-1)).mean(0)
    for name, color in {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}.items()
  }
  assert found["red"][0] == found["green"][0] < found["blue"][0]
  assert found["red"][1] == found["blue"][1] < found["green"][1]
  # a tall view stays tall: 60 pixels high, 40 wide
  red = np.argwhere((sheet == (255, 0, 0)).all(-1))
  assert np.ptp(red[:, 0]) > 1.4 * np.ptp(red[:, 1])


def test_the_animal_is_cut_out_as_a_square() -> None:
  alpha = np.zeros((100, 200))
  alpha[40:60, 90:150] = 1
  x0, y0, x1, y1 = contact_sheet.animal_box([alpha])
  assert x0 < 90 and x1 > 150 and y0 < 40 and y1 > 60
  assert abs((x1 - x0) - (y1 - y0)) <= 1
  assert contact_sheet.animal_box([np.zeros((10, 12))]) == (0, 0, 12, 10)


def test_near_is_brighter_than_far_and_nothing_is_white() -> None:
  depth = np.array([[1.0, 2.0, 3.0, 0.0]])
  alpha = np.array([[1.0, 1.0, 1.0, 0.0]])
  image = contact_sheet.color_depth(depth, alpha, 1.0, 3.0).astype(int).sum(-1)[0]
  assert image[0] > image[1] > image[2]
  assert image[3] == 3 * 255


def test_normals_are_seen_from_the_camera() -> None:
  """OpenCV axes: what faces the camera has negative z there and is shown blue."""
  camera = np.eye(4)
  normal = np.array([[[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])
  image = contact_sheet.color_normal(normal, np.ones((1, 3)), camera)[0]
  assert image.argmax(-1).tolist() == [2, 0, 1]


def test_pixels_without_error_are_white() -> None:
  a = flat((100, 100, 100), 1, 2)
  b = a.copy()
  b[0, 1] = 200
  image = contact_sheet.color_error(a, b)
  assert image[0, 0].tolist() == [255, 255, 255]
  assert image[0, 1].sum() < 150


def test_a_strip_holds_views_side_by_side() -> None:
  strip = np.asarray(contact_sheet.draw_strip([flat((255, 0, 0)), flat((0, 255, 0))], 30))
  assert strip.shape == (30, 60, 3)
  assert strip[15, 15].tolist() == [255, 0, 0] and strip[15, 45].tolist() == [0, 255, 0]


def test_a_scene_whose_pictures_cannot_be_written_is_no_error(tmp_path: pathlib.Path) -> None:
  labels = ("photograph", "render", "normal", "novel view")
  rows = [SheetRow(label, [flat((9, 9, 9))]) for label in labels]
  scene_pictures.write_scene_pictures(tmp_path, "a", rows, "notes", {})
  assert {p.parent.name for p in tmp_path.glob("*/a.jpg")} == {"sheets", "thumbs"}
  (tmp_path / "sheets" / "a.jpg").unlink()
  (tmp_path / "sheets").rmdir()
  (tmp_path / "sheets").write_text("in the way")
  scene_pictures.write_scene_pictures(tmp_path, "a", rows, "notes", {})


def test_the_headline_scores_are_in_words() -> None:
  scores = {"input_fg_psnr": 30.86, "input_iou": 0.9934, "novel_iou": 0.9, "input_ssim": 0.9}
  lines = scene_pictures._describe_scores(scores)
  assert lines == ["input views: fg PSNR 30.9 dB, IoU 0.993", "novel views: IoU 0.900"]
