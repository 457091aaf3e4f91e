"""The import rule of the package, read from its syntax: imports point down only.

The table below is the order. A module may import those of earlier rows. A layer is a file or, where
it grew, a folder, whose modules may import one another, but not in a circle.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import graphlib
import pathlib
import re
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "jaxsplat_mouse"
NAME = PACKAGE.name

# First name of a module after the package, or two names where parts of a folder stand apart; a row
# of several holds modules of equal standing.
LAYERS: tuple[tuple[str, ...], ...] = (
  ("errors", "version"),
  ("math",),
  ("spherical_harmonics",),
  ("cameras",),
  ("gaussians",),
  ("projection", "losses"),
  ("ops",),
  ("rendering",),
  ("scene",),
  ("visual_hull",),
  ("canonical",),
  ("density", "optimizer"),
  ("fit", "learn"),
  ("metrics", "meshing"),
  ("procedural_mouse",),
  ("io",),
  ("runtime",),
  ("dataset",),
  ("validation",),
  ("report",),
  ("learn.training",),
  ("capture",),
  ("run",),
  ("commands",),
  # `python -m jaxsplat_mouse.NAME`: a few lines over the command of that name.
  (
    "main",
    "render",
    "evaluate",
    "validate",
    "prepare",
    "mesh",
    "manifest",
    "view",
    "convert",
    "train",
  ),
)
ENTRIES = LAYERS[-1]
ENTRY_LINES = 8
FIT = LAYERS.index(("fit", "learn"))
RUN = LAYERS.index(("run",))

# From `fit` down everything is a function of arrays: no flags, no files, no logging, no display.
IMPURE = {"absl", "logging", "pathlib", "PIL", "plyfile", "rich", "shutil", "tempfile"}


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported module: `target` is "" for the package itself, None outside of it."""

  line: int
  target: str | None
  outside: str = ""


def find_modules(package: pathlib.Path) -> dict[str, pathlib.Path]:
  """Dotted names below the package, "" for its own __init__, to their files."""
  modules = {}
  for path in sorted(package.rglob("*.py")):
    parts = path.relative_to(package).with_suffix("").parts
    modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return modules


def absolute_names(node: ast.AST, package: list[str]) -> list[tuple[str, str]]:
  """(module, imported name or "") of an import statement; `package` resolves leading dots."""
  if isinstance(node, ast.Import):
    return [(alias.name, "") for alias in node.names]
  if not isinstance(node, ast.ImportFrom):
    return []
  base = node.module or ""
  if node.level:
    parents = [NAME, *package][: len(package) + 2 - node.level]
    base = ".".join([*parents, *filter(None, [node.module])])
  return [(base, alias.name) for alias in node.names]


def is_module(folder: str, name: str, modules: dict[str, pathlib.Path]) -> bool:
  """Whether `from folder import name` means a module: there now, or an optional one that is not."""
  if name and f"{folder}.{name}".lstrip(".") in modules:
    return True
  init = modules.get(folder)
  return (
    init is not None
    and name != ""
    and folder != ""
    and init.name == "__init__.py"
    and not re.search(rf"\b{re.escape(name)}\b", init.read_text(encoding="utf-8"))
  )


def find_imports(module: str, modules: dict[str, pathlib.Path]) -> Iterator[Import]:
  path = modules[module]
  parts = module.split(".") if module else []
  package = parts if path.name == "__init__.py" else parts[:-1]
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
    for base, name in absolute_names(node, package):
      line = getattr(node, "lineno", 0)
      root, _, inner = base.partition(".")
      if root != NAME:
        yield Import(line=line, target=None, outside=root)
      elif is_module(inner, name, modules):
        yield Import(line=line, target=f"{inner}.{name}".lstrip("."))
      else:
        yield Import(line=line, target=inner)


def layer_of(module: str) -> int | None:
  first, second = (*module.split("."), "")[:2]
  for name in (f"{first}.{second}", first):
    for index, patterns in enumerate(LAYERS):
      if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        return index
  return None


def inside_problem(module: str, imported: Import) -> str | None:
  """What is wrong with an import of another module of the package."""
  target = imported.target
  if target is None:
    return None
  if target == "":
    return "imports the package itself: name the module"
  own, other = layer_of(module), layer_of(target)
  if other is None:
    return f"imports {target}, which is in no layer"
  if own is not None and other > own:
    return f"imports {target}, which is not below it"
  return None


def outside_problem(module: str, imported: Import) -> str | None:
  """What is wrong with an import from outside the package."""
  own = layer_of(module)
  if own is None:
    return None
  if imported.outside == "orbax" and module != "runtime.checkpoints":
    return "imports orbax: runtime/checkpoints.py alone does"
  if imported.outside == "ml_collections" and own < RUN:
    return "imports ml_collections: run/ and commands/ alone read a ConfigDict"
  if imported.outside in IMPURE and own <= FIT:
    return f"imports {imported.outside}: from fit down there are no flags, files or logging"
  return None


def shape_problems(module: str, path: pathlib.Path) -> list[str]:
  """What is wrong with an entry file, or with the __init__ of a folder."""
  text = path.read_text(encoding="utf-8")
  lines, body = len(text.splitlines()), ast.parse(text).body
  if module in ENTRIES and lines > ENTRY_LINES:
    return [f"{module}: {lines} lines; it runs a command, in {ENTRY_LINES} at most"]
  if module not in ENTRIES and "__name__ ==" in text:
    return [f"{module}: runs as a program; files of the top row alone do"]
  if path.name == "__init__.py" and any(not isinstance(node, ast.Expr) for node in body):
    return [f"{module}: its __init__ holds code; a docstring is all it may hold"]
  return []


def find_circle(edges: dict[str, set[str]]) -> str | None:
  try:
    graphlib.TopologicalSorter(edges).prepare()
  except graphlib.CycleError as error:
    return "import circle: " + " -> ".join(error.args[1])
  return None


def find_problems(package: pathlib.Path) -> list[str]:
  """Every breach of the rule in a package, one line each; empty where it holds."""
  modules = find_modules(package)
  problems, edges = [], {}
  for module in modules:
    if module == "":  # The public names, imported lazily, stand above everything.
      continue
    if layer_of(module) is None:
      problems.append(f"{module}: is in no layer; add it to LAYERS where it belongs")
    found = list(find_imports(module, modules))
    edges[module] = {i.target for i in found if i.target and i.target != module}
    for imported in found:
      for problem in (inside_problem(module, imported), outside_problem(module, imported)):
        if problem:
          problems.append(f"{module}:{imported.line}: {problem}")
    problems += shape_problems(module, modules[module])
  circle = find_circle(edges)
  return [*problems, circle] if circle else problems


def test_imports_point_down() -> None:
  assert find_problems(PACKAGE) == []


def test_the_package_is_seen() -> None:
  """An empty or moved package must not pass as a clean one."""
  assert {"errors", "math", "cameras", "gaussians", "scene"} <= set(find_modules(PACKAGE))


def write_package(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
  package = folder / NAME
  for name, text in {"__init__.py": "", **files}.items():
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
  return package


def test_a_clean_tree_has_no_problems(tmp_path: pathlib.Path) -> None:
  files = {
    "__init__.py": "from jaxsplat_mouse.fit import loop",
    "errors.py": "",
    "version.py": "",
    "cameras.py": "import jax\nfrom jaxsplat_mouse import errors, math",
    "math.py": "",
    "ops/__init__.py": '"""Kernels."""',
    "ops/rasterize/__init__.py": "",
    "ops/rasterize/api.py": "from . import base\nfrom .base import A\nfrom ...cameras import B",
    "ops/rasterize/base.py": "from jaxsplat_mouse.ops.rasterize import optional_and_absent",
    "fit/__init__.py": "",
    "fit/loop.py": "import jaxsplat_mouse.ops.rasterize.api as api",
    "runtime/__init__.py": "",
    "runtime/checkpoints.py": "import orbax.checkpoint as ocp\nfrom jaxsplat_mouse import version",
    "commands/__init__.py": "",
    "commands/render.py": "from absl import flags\nimport ml_collections",
    "render.py": 'from jaxsplat_mouse.commands import a\nif __name__ == "__main__":\n  a()',
    "commands/a.py": "",
  }
  assert find_problems(write_package(tmp_path, files)) == []


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"math.py": "from jaxsplat_mouse import fit", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "import jaxsplat_mouse.fit", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "from jaxsplat_mouse.fit import FitConfig", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "from .fit import FitConfig", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "def f():\n  from . import fit", "fit.py": ""}, "math:2: imports fit"),
    (
      {"math.py": "if TYPE_CHECKING:\n  from jaxsplat_mouse.fit import FitConfig", "fit.py": ""},
      "math:2: imports fit",
    ),
    (
      {"ops/base.py": "from ..rendering import render_views", "rendering.py": ""},
      "ops.base:1: imports rendering",
    ),
    ({"ops/a.py": "from . import b", "ops/b.py": "from . import a"}, "import circle: ops."),
    ({"fit.py": "from jaxsplat_mouse import Scene"}, "fit:1: imports the package itself"),
    ({"fit.py": "from jaxsplat_mouse import __version__"}, "fit:1: imports the package itself"),
    ({"utils.py": ""}, "utils: is in no layer"),
    ({"fit.py": "from jaxsplat_mouse.utils import x"}, "fit:1: imports utils, which is in no"),
    ({"fit.py": "import orbax.checkpoint"}, "fit:1: imports orbax"),
    ({"run.py": "from orbax import checkpoint"}, "run:1: imports orbax"),
    ({"fit.py": "from ml_collections import ConfigDict"}, "fit:1: imports ml_collections"),
    ({"losses.py": "import logging"}, "losses:1: imports logging"),
    ({"main.py": "\n" * 9}, "main: 9 lines"),
    ({"commands/render.py": 'if __name__ == "__main__":\n  main()'}, "commands.render: runs as"),
    ({"fit/__init__.py": "import jax"}, "fit: its __init__ holds code"),
    (
      {"rendering.py": 'if __name__ == "__main__":\n  from . import commands', "commands.py": ""},
      "rendering:2: imports commands",
    ),
  ],
)
def test_a_breach_is_found(tmp_path: pathlib.Path, files: dict[str, str], expected: str) -> None:
  problems = find_problems(write_package(tmp_path, files))
  assert [p for p in problems if p.startswith(expected)], problems


def public_names(package: pathlib.Path) -> dict[str, list[str]]:
  """Public classes and functions of a package, and the modules that define them."""
  found: dict[str, list[str]] = {}
  for module, path in find_modules(package).items():
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
      if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
        found.setdefault(node.name, []).append(module)
  return found


def test_no_two_public_things_share_a_name() -> None:
  """Implementations of one operation, readers of formats and commands repeat on purpose."""
  shared = {name: where for name, where in public_names(PACKAGE).items() if len(where) > 1}
  for name, modules in list(shared.items()):
    folders = {module.rpartition(".")[0] for module in modules}
    repeated = {"ops.rasterize", "ops.photometric", "capture.formats", "commands"}
    if len(folders) == 1 and folders <= repeated:
      del shared[name]
  assert shared == {}


def test_no_two_modules_share_a_name() -> None:
  names: dict[str, list[str]] = {}
  for module, path in find_modules(PACKAGE).items():
    if path.name != "__init__.py" and module not in ENTRIES and not module.startswith("commands."):
      names.setdefault(path.stem, []).append(module)
  operations = ("ops.rasterize.", "ops.photometric.")
  shared = {
    name: where
    for name, where in names.items()
    if len(where) > 1 and not all(module.startswith(operations) for module in where)
  }
  assert shared == {}
