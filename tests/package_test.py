"""The package as it is installed: public names, import cost, declared dependencies."""

from __future__ import annotations

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import jaxsplat_mouse

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxsplat_mouse"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import names that differ from the name of the distribution.
DISTRIBUTIONS = {
  "yaml": "pyyaml",
  "PIL": "pillow",
  "absl": "absl-py",
  "cv2": "opencv-python-headless",
  "ml_collections": "ml-collections",
  "orbax": "orbax-checkpoint",
  "skimage": "scikit-image",
}


@pytest.mark.parametrize("name", sorted(jaxsplat_mouse._EXPORTS))
def test_public_name_resolves(name: str) -> None:
  value = getattr(jaxsplat_mouse, name)
  module, attribute = jaxsplat_mouse._EXPORTS[name]
  assert value is getattr(sys.modules[f"jaxsplat_mouse.{module}"], attribute)


def test_public_names_agree() -> None:
  """The table, __all__, dir() and the imports for type checkers say the same."""
  tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
  checked = {
    alias.asname or alias.name: (node.module.removeprefix("jaxsplat_mouse."), alias.name)
    for block in tree.body
    if isinstance(block, ast.If)
    for node in block.body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
  }
  assert checked == jaxsplat_mouse._EXPORTS
  assert set(jaxsplat_mouse.__all__) == {*checked, "__version__"}
  assert set(jaxsplat_mouse.__all__) <= set(dir(jaxsplat_mouse))


def test_unknown_name_is_an_attribute_error() -> None:
  with pytest.raises(AttributeError, match="no attribute 'fit_scnee'"):
    jaxsplat_mouse.fit_scnee  # noqa: B018


def test_import_loads_no_jax() -> None:
  code = (
    "import sys, jaxsplat_mouse; dir(jaxsplat_mouse); "
    "print(sorted({'jax', 'jaxlib', 'numpy', 'absl'} & set(sys.modules)))"
  )
  found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert found.returncode == 0, found.stderr
  assert found.stdout.strip() == "[]"


def test_version_is_the_installed_one() -> None:
  try:
    installed = importlib.metadata.version("jaxsplat-mouse")
  except importlib.metadata.PackageNotFoundError:
    pytest.skip("the package is not installed here, the sources are used in place")
  assert installed == jaxsplat_mouse.__version__


def requirement_names(requirements: list[str]) -> set[str]:
  return {re.split(r"[\[<>=~! ;]", line, maxsplit=1)[0] for line in requirements}


def third_party_imports(tree: ast.AST) -> list[tuple[str, bool]]:
  """(distribution, needed as soon as the module is imported) of every import."""
  inner = {
    child
    for function in ast.walk(tree)
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.walk(function)
  }
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names = [node.module or ""]
    else:
      continue
    for root in {name.partition(".")[0] for name in names}:
      if root not in sys.stdlib_module_names and root != "jaxsplat_mouse":
        found.append((DISTRIBUTIONS.get(root, root), node not in inner))
  return found


def undeclared(tree: ast.AST, core: set[str], optional: set[str]) -> set[str]:
  """Imports that `pip install .` (or, inside a function, one of the extras) would not satisfy."""
  return {
    name
    for name, at_once in third_party_imports(tree)
    if name not in core and (at_once or name not in optional)
  }


def test_imports_are_declared() -> None:
  core = requirement_names(PROJECT["dependencies"])
  extras = PROJECT["optional-dependencies"]
  optional = set().union(
    *(requirement_names(extras[e]) for e in extras if e not in ("test", "dev"))
  )
  found = {
    str(path.relative_to(ROOT)): sorted(undeclared(ast.parse(path.read_text()), core, optional))
    for path in PACKAGE.rglob("*.py")
  }
  assert {path: names for path, names in found.items() if names} == {}


def test_an_undeclared_import_is_found() -> None:
  tree = ast.parse("import jax\nimport cv2\ndef f():\n  import av, torch\n  from skimage import io")
  assert undeclared(tree, {"jax"}, {"av", "opencv-python-headless"}) == {
    "opencv-python-headless",
    "torch",
    "scikit-image",
  }


def test_jax_range_is_the_same_everywhere() -> None:
  wanted = ">=0.10.2,<0.13"
  extras = PROJECT["optional-dependencies"]
  lines = [*PROJECT["dependencies"], *extras["cuda12"], *extras["cuda13"]]
  found = [line for line in lines if re.match(r"jax(lib)?\b", line)]
  assert len(found) == 4
  assert all(line.endswith(wanted) for line in found), found
