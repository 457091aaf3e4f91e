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

# First name of a module after the package; a row of several holds modules of equal standing.
LAYERS: tuple[tuple[str, ...], ...] = (
  ("errors",),
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
  ("fit",),
  ("metrics", "meshing"),
  ("procedural_mouse",),
  ("io",),
  ("runtime",),
  ("dataset",),
  ("validation",),
  ("report",),
  ("capture",),
  ("run",),
  ("commands",),
  # `python -m jaxsplat_mouse.NAME`: three lines over the command of that name.
  ("main", "render", "evaluate", "validate", "prepare", "mesh", "manifest", "view"),
)
FIT = LAYERS.index(("fit",))
RUN = LAYERS.index(("run",))

# From `fit` down everything is a function of arrays: no flags, no files, no logging, no display.
IMPURE = {"absl", "logging", "pathlib", "PIL", "plyfile", "rich", "shutil", "tempfile"}
MAIN_LIMIT = 80


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


def is_main_guard(node: ast.AST) -> bool:
  """`if __name__ == "__main__":`, where a module that is run stands above every layer."""
  return (
    isinstance(node, ast.If)
    and isinstance(node.test, ast.Compare)
    and isinstance(node.test.left, ast.Name)
    and node.test.left.id == "__name__"
  )


def walk(node: ast.AST) -> Iterator[ast.AST]:
  """Every node, those in functions and under TYPE_CHECKING too, except below the main guard."""
  yield node
  for child in ast.iter_child_nodes(node):
    if not is_main_guard(child):
      yield from walk(child)


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
  for node in walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
    for base, name in absolute_names(node, package):
      line = getattr(node, "lineno", 0)
      root, _, inner = base.partition(".")
      if root != NAME:
        yield Import(line=line, target=None, outside=root)
      elif is_module(inner, name, modules):
        yield Import(line=line, target=f"{inner}.{name}".lstrip("."))
      elif not (inner == "" and name == "__version__"):
        yield Import(line=line, target=inner)


def layer_of(module: str) -> int | None:
  name = module.partition(".")[0]
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
  if "main" in modules:
    lines = len(modules["main"].read_text(encoding="utf-8").splitlines())
    if lines >= MAIN_LIMIT:
      problems.append(f"main: {lines} lines; it holds flags only, under {MAIN_LIMIT}")
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
    "__init__.py": "from jaxsplat_mouse.fit import Config",
    "errors.py": "",
    "cameras.py": "import jax\nfrom jaxsplat_mouse import errors, math",
    "math.py": "",
    "rasterize/__init__.py": "from jaxsplat_mouse.rasterize.api import rasterize",
    "rasterize/api.py": "from . import base\nfrom .base import A\nfrom ..cameras import B",
    "rasterize/base.py": "from jaxsplat_mouse.rasterize import optional_and_absent",
    "render.py": 'if __name__ == "__main__":\n  from jaxsplat_mouse import render_cli',
    "render_cli.py": "from absl import flags\nimport ml_collections",
    "fit.py": "import jaxsplat_mouse.rasterize as rasterize",
    "checkpoint.py": "import orbax.checkpoint as ocp\nfrom jaxsplat_mouse import __version__",
    "main.py": "\n" * 79,
  }
  assert find_problems(write_package(tmp_path, files)) == []


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"math.py": "from jaxsplat_mouse import fit", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "import jaxsplat_mouse.fit", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "from jaxsplat_mouse.fit import Config", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "from .fit import Config", "fit.py": ""}, "math:1: imports fit"),
    ({"math.py": "def f():\n  from . import fit", "fit.py": ""}, "math:2: imports fit"),
    (
      {"math.py": "if TYPE_CHECKING:\n  from jaxsplat_mouse.fit import Config", "fit.py": ""},
      "math:2: imports fit",
    ),
    (
      {"rasterize/base.py": "from ..render import render_views", "render.py": ""},
      "rasterize.base:1: imports render",
    ),
    (
      {"rasterize/a.py": "from . import b", "rasterize/b.py": "from . import a"},
      "import circle: rasterize.",
    ),
    (
      {
        "rasterize/__init__.py": "from jaxsplat_mouse.rasterize.a import x",
        "rasterize/a.py": "from jaxsplat_mouse.rasterize import x",
      },
      "import circle: rasterize",
    ),
    ({"fit.py": "from jaxsplat_mouse import Scene"}, "fit:1: imports the package itself"),
    ({"utils.py": ""}, "utils: is in no layer"),
    ({"fit.py": "from jaxsplat_mouse.utils import x"}, "fit:1: imports utils, which is in no"),
    ({"fit.py": "import orbax.checkpoint"}, "fit:1: imports orbax"),
    ({"pipeline.py": "from orbax import checkpoint"}, "pipeline:1: imports orbax"),
    ({"fit.py": "from ml_collections import ConfigDict"}, "fit:1: imports ml_collections"),
    ({"losses.py": "import logging"}, "losses:1: imports logging"),
    ({"main.py": "\n" * 80}, "main: 80 lines"),
  ],
)
def test_a_breach_is_found(tmp_path: pathlib.Path, files: dict[str, str], expected: str) -> None:
  problems = find_problems(write_package(tmp_path, files))
  assert [p for p in problems if p.startswith(expected)], problems
