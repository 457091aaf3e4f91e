"""The package as it is installed: public names, types, import cost, dependencies, the wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

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


# -------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The wheel, built from a copy: setuptools writes into the folder that it builds from."""
  pytest.importorskip("setuptools", minversion="77", reason="needs the extra `test`")
  folder = tmp_path_factory.mktemp("build")
  for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, folder / name)
  for name in ("jaxsplat_mouse", "configs"):
    shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
  command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
  subprocess.run([sys.executable, *command, "--wheel-dir=dist", "."], cwd=folder, check=True)
  (found,) = (folder / "dist").glob("*.whl")
  return found


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The Python of a fresh environment with the wheel; its dependencies are those of this one."""
  folder = tmp_path_factory.mktemp("environment")
  venv.create(folder, symlinks=True)
  python = folder / "bin" / "python"
  code = "import sysconfig; print(sysconfig.get_path('purelib'))"
  packages = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
  site = pathlib.Path(packages.stdout.strip())
  with zipfile.ZipFile(wheel) as file:
    file.extractall(site)
  # Python reads no .pth file of a folder that a .pth file names, so that an editable installation
  # of the package itself stays out.
  (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
  return python


def run_installed(
  python: pathlib.Path, *arguments: str, cwd: pathlib.Path
) -> subprocess.CompletedProcess[str]:
  env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  return subprocess.run(
    [str(python), "-m", *arguments], cwd=cwd, env=env, capture_output=True, text=True
  )


def test_the_wheel_holds_every_file_of_the_package(wheel: pathlib.Path) -> None:
  wanted = {
    f"jaxsplat_mouse/{path.relative_to(PACKAGE)}"
    for path in PACKAGE.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  } | {f"jaxsplat_mouse/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
  names = set(zipfile.ZipFile(wheel).namelist())
  assert wanted == {name for name in names if ".dist-info/" not in name}


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    (["--config=4dgs"], "--config=4dgs: no such file; expected a path or one of 2dgs, 3dgs, defa"),
    (["--config=2dgs:preview", "--config.data.input=no"], "no: no such file or folder; expected"),
    (["--config=3dgs", "--config.fit.iteratons=5"], "fit.iteratons: unknown key; did you mean"),
  ],
)
def test_the_wheel_brings_its_configs(
  installed: pathlib.Path, tmp_path: pathlib.Path, arguments: list[str], problem: str
) -> None:
  """Names work in an empty folder, beside a foreign package that is called `configs`."""
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "default.py").write_text("raise AssertionError('not mine')")
  found = run_installed(installed, "jaxsplat_mouse.main", *arguments, cwd=tmp_path)
  assert found.returncode == 1
  assert found.stderr.startswith(f"error: {problem}"), found.stderr


def test_the_wheel_installs_nothing_under_a_generic_name(
  installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  found = run_installed(installed, "configs.default", cwd=tmp_path)
  assert "No module named 'configs'" in found.stderr or "No module named configs" in found.stderr
  found = run_installed(installed, "jaxsplat_mouse.configs.default", cwd=tmp_path)
  assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_the_wheel_does_the_whole_job(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
  arguments = ["--config=2dgs:preview", "--config.fit.iterations=20"]
  found = run_installed(installed, "jaxsplat_mouse.main", *arguments, cwd=tmp_path)
  assert found.returncode == 0, found.stderr
  dataset = tmp_path / "runs" / "2dgs_preview" / "dataset"
  checked = run_installed(
    installed, "jaxsplat_mouse.validate", str(dataset), "--size=256", cwd=tmp_path
  )
  assert checked.returncode == 0, checked.stdout


# -------------------------------------------------------------------------------------- its types

CALLER = """
from typing import assert_type

assert_type(scene, jm.Scene)
assert_type(views.rgb.shape, tuple[int, ...])
assert_type(fit.gaussians, jm.Gaussians3D | jm.Gaussians2D)
print(views.alpha, views.depth, views.normal, fit.gaussians.means, scene.images, scene.alphas)
print(cameras[0].world_to_camera, cameras.intrinsics, cameras.centers, len(cameras))
for other in jm.fit_scenes([scene, scene], jm.FitConfig.for_model("3dgs"), seed=1):
  print(other.gaussians.sh, other.filter_width)
try:
  jm.load_scene("scene", normalize="none", up="-y")
except jm.InputError as error:
  print(error.path, error.field, error.problem, jm.__version__)
"""


def test_callers_pass_a_strict_type_check(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """The README's Python example and more, against the installed package: no unknown types."""
  checker = shutil.which("basedpyright", path=pathlib.Path(sys.executable).parent)
  if checker is None:
    pytest.skip("needs basedpyright, from the extra `test`")
  example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
  assert example is not None
  (tmp_path / "caller.py").write_text(example[1] + CALLER)
  (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
  found = subprocess.run(
    [checker, f"--pythonpath={installed}", "caller.py"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stdout
