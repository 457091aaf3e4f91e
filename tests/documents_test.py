"""The documents name files, commands and targets that exist."""

from __future__ import annotations

import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = (
  *("README.md", "BUILD_NOTES.md", "CHANGELOG.md", "benchmarks/README.md"),
  *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
)
# Paths in documents start at the root or, as most do, at the package.
BASES = (ROOT, ROOT / "jaxsplat_mouse", ROOT / "benchmarks")
FOLDERS = ("jaxsplat_mouse", "tests", "benchmarks", "configs", "docs", ".ci")

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"(?<![\w/.:-])((?:[\w.-]+/)*[\w-]+\.(?:py|md))\b(?!\.)")
_FOLDER = re.compile(rf"`((?:{'|'.join(FOLDERS[:-1])})/(?:[\w-]+/)*)`")
_MODULE = re.compile(r"python -m ((?:jaxsplat_mouse|benchmarks)\.\w+)")
_TARGET = re.compile(r"(?:^|`|time )make ([a-z][a-z-]*)", re.MULTILINE)
_CONFIG = re.compile(r"--config[= ]([\w/.]+)")


def read(document: str) -> str:
  return (ROOT / document).read_text(encoding="utf-8")


def joined(text: str) -> str:
  """A text whose commands stand on one line each."""
  return re.sub(r"\s*\\?\n\s*", " ", text)


@functools.cache
def file_names() -> frozenset[str]:
  paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
  return frozenset(path.name for path in [*paths, *ROOT.glob("*")])


def is_placeholder(path: str) -> bool:
  """Whether a path has a part such as NAME or SCENE, which stands for any name."""
  *folders, name = path.split("/")
  parts = [*folders, name.removesuffix(".py")] if name.endswith(".py") else folders
  return any(re.search(r"[A-Z]{2,}", part) for part in parts)


def missing_files(text: str) -> list[str]:
  missing = []
  for path in _FILE.findall(text):
    known = any((base / path).is_file() for base in BASES)
    if "/" not in path:
      known = known or path in file_names()
    if not known and not is_placeholder(path):
      missing.append(path)
  return missing


def missing_commands(text: str) -> list[str]:
  modules = [name for name in _MODULE.findall(joined(text)) if not re.search(r"\.[A-Z]+$", name)]
  targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
  missing = [m for m in modules if not (ROOT / m.replace(".", "/")).with_suffix(".py").is_file()]
  return missing + [f"make {name}" for name in _TARGET.findall(text) if name not in targets]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
  targets = [link for link in _LINK.findall(read(document)) if "://" not in link]
  here = (ROOT / document).parent
  assert [t for t in targets if not (here / t.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != "CHANGELOG.md"])
def test_files_exist(document: str) -> None:
  text = read(document)
  assert missing_files(text) == []
  assert [folder for folder in _FOLDER.findall(text) if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
  assert missing_commands(read(document)) == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != "CHANGELOG.md"])
def test_configs_exist(document: str) -> None:
  """`plain_2dgs` is the baseline of the benchmarks for the model of `2dgs`."""
  names = [
    pathlib.Path(name).stem.removeprefix("plain_") for name in _CONFIG.findall(read(document))
  ]
  known = {path.stem for path in (ROOT / "configs").glob("*.py")}
  assert [name for name in names if name not in known and not name.isupper()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_are_short(document: str) -> None:
  """Prose has at most 100 characters a line; tables, code and lines with a link may have more."""
  prose = re.sub(r"^```.*?^```", "", read(document), flags=re.MULTILINE | re.DOTALL).splitlines()
  assert [x for x in prose if len(x) > 100 and not x.startswith("|") and "](" not in x] == []


def test_what_is_missing_is_found() -> None:
  text = "`fit/nothing.py` and `fit/config.py`, run `python -m jaxsplat_mouse.nothing`, `make tea`"
  assert missing_files(text) == ["fit/nothing.py"]
  assert missing_commands(text) == ["jaxsplat_mouse.nothing", "make tea"]
  assert missing_files("a new file `capture/formats/NAME.py`, or `DATASET/README.md`") == []
