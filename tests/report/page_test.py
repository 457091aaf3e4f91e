"""The report page: its text, its escaping, and its behaviour in a browser."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report import page
from jaxsplat_mouse.report.reported_run import ReportedRun
from tests.report.report_fixtures import empty_run, fake_run

VOID = {"meta", "img", "input", "link", "br"}
BROWSER = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


class Reader(html.parser.HTMLParser):
  """Collects sources and text, and refuses tags that are not closed in order."""

  def __init__(self) -> None:
    super().__init__()
    self.open: list[str] = []
    self.links: list[str] = []
    self.text = ""

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.links += [value or "" for name, value in attrs if name in ("src", "href")]
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag: str) -> None:
    assert self.open.pop() == tag

  def handle_data(self, data: str) -> None:
    self.text += data


def write(run: ReportedRun) -> pathlib.Path:
  page.write_report_page(run, scene_records.latest_records(run.dataset))
  return run.report / "index.html"


def read(page: pathlib.Path) -> Reader:
  reader = Reader()
  reader.feed(page.read_text())
  assert not reader.open
  return reader


def test_the_page_accounts_for_every_scene(tmp_path: pathlib.Path) -> None:
  page = write(fake_run(tmp_path / "arena", 60, pictures=False))
  reader = read(page)
  for part in (
    "56 of 60 scenes",
    "2 failed, 2 rejected",
    "cam_001.png: frames[1].file_path: broken image",
    "is below 0.995",
    "median novel fg PSNR",
    "scenes per minute",
    "fit.num_gaussians",
    "python -m jaxsplat_mouse.validate",
  ):
    assert part in reader.text, part
  inside = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])  # type: ignore[index]
  assert len(inside["scenes"]) == 60
  worst = [s["metrics"][0] for s in inside["scenes"] if s["status"] != "failed"]
  assert worst == sorted(worst)


def test_the_page_needs_nothing_from_elsewhere(tmp_path: pathlib.Path) -> None:
  run = fake_run(tmp_path / "arena", 12)
  page = write(run)
  for link in read(page).links:
    assert link.startswith(("#scene=", "data:")) or (run.report / link).is_file(), link
  assert "http" not in page.read_text().replace("http-equiv", "")


def test_text_of_scenes_cannot_become_markup(tmp_path: pathlib.Path) -> None:
  run = empty_run(tmp_path / "<b>w")
  evil = "</script><script>alert(1)</script>"
  record = SceneRecord(scene="a", status="failed", error=evil, extra={"source": evil})
  page.write_report_page(run, {"a": record})
  text = (run.report / "index.html").read_text()
  assert evil not in text and "<b>w" not in text
  assert text.count("<script") == 2


def test_a_run_without_scenes_or_metrics_has_a_page(tmp_path: pathlib.Path) -> None:
  run = empty_run(tmp_path / "w")
  page.write_report_page(run, {})
  assert "0 of 0 scenes" in read(run.report / "index.html").text
  page.write_report_page(run, {"a": SceneRecord(scene="a", status="done")})
  assert "1 of 1 scenes" in read(run.report / "index.html").text


def test_the_page_names_the_command_that_checks_the_dataset(tmp_path: pathlib.Path) -> None:
  run = empty_run(tmp_path / "my run", {"render.image_size": 256})
  assert run.validate_command() in read(write(run)).text


# --------------------------------------------------------------------------------------- a browser

needs_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium (apt-get install chromium)")
FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-logging=stderr",
)


def browse(page: pathlib.Path, hash_: str, folder: pathlib.Path) -> str:
  """The document after its script has run at `#hash_`; errors of the script fail the test."""
  command = [BROWSER, *FLAGS, f"--user-data-dir={folder}", "--dump-dom", f"{page.as_uri()}#{hash_}"]
  found = subprocess.run(command, capture_output=True, text=True, timeout=60)
  assert not re.findall(r"CONSOLE.*(?:Uncaught|ERR_)", found.stderr), found.stderr
  return found.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The page of 1,600 scenes, without their pictures."""
  return write(fake_run(tmp_path_factory.mktemp("large") / "arena", 1600, pictures=False))


@needs_browser
def test_1600_scenes_are_paged_worst_first(large: pathlib.Path, tmp_path: pathlib.Path) -> None:
  document = browse(large, "", tmp_path)
  assert document.count('class="card"') == 24
  assert "1–24 of 1,600" in document
  shown = [float(x) for x in re.findall(r"<p>novel fg PSNR ([\d.]+) dB", document)]
  assert len(shown) == 24 and shown == sorted(shown)
  assert re.search(r'aria-label="page 67"', document)


@needs_browser
def test_search_order_and_table_from_the_address(
  large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  document = browse(large, "query=mouse03&sort=novel_iou&layout=rows&page=1", tmp_path)
  assert "101–134 of 134 (1,600 in all)" in document
  rows = re.findall(r'<tr tabindex="0"><td>([^<]*)</td>', document)
  assert len(rows) == 34 and all(name.startswith("mouse03_") for name in rows)


@needs_browser
def test_a_scene_opens_with_its_sheet_and_cards_load_lazily(tmp_path: pathlib.Path) -> None:
  page = write(fake_run(tmp_path / "arena", 12))
  document = browse(page, "scene=mouse03_frame_00003", tmp_path / "profile")
  assert re.search(r'<dialog[^>]* open=""', document)
  assert 'src="sheets/mouse03_frame_00003.jpg"' in document
  assert "RGB on white; alpha is an estimate" in document
  cards = re.findall(r'<img[^>]*src="thumbs/[^>]*>', document.partition('id="list"')[2])
  assert len(cards) == 11 and all('loading="lazy"' in card for card in cards)
