"""Finds and loads configuration files: by path, or by the name of one that the package contains.

Loads neither JAX nor NumPy, so that a wrong name is reported at once.
"""

from __future__ import annotations

import contextlib
import pathlib
import runpy
import sys
import types
from collections.abc import Iterator

from ml_collections import ConfigDict

from jaxsplat_mouse.errors import ConfigError

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_IMPORTED_AS = "configs"
TRAINING_NAMES = ("gslrm",)  # of the package's own configs, those of `jaxsplat_mouse.train`


def packaged_folder() -> pathlib.Path:
  """Returns the folder of the package's own configs.

  An installed package contains it; in a checkout and an editable installation it lies beside the
  package, at the top of the repository.
  """
  installed = _PACKAGE / "configs"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def packaged_names() -> list[str]:
  """Returns the names of the package's own configs of a fit: `2dgs`, `3dgs`, `default`."""
  others = {"__init__", *TRAINING_NAMES}
  return sorted(path.stem for path in packaged_folder().glob("*.py") if path.stem not in others)


def find_config(name: str) -> str:
  """Returns the path of a config, with its variant: `/.../configs/2dgs.py:preview`.

  Args:
    name: the path of a file, or the name of one of the package's own configs; either may end in a
      colon and a variant, as `2dgs:preview` does. A file that exists wins over a name.

  Returns:
    the path as it was given, or the absolute path of the package's own config.

  Raises:
    ConfigError: there is no such file and no such name.
  """
  file, colon, variant = name.partition(":")
  if pathlib.Path(file).is_file():
    return name
  if file in packaged_names() or file in TRAINING_NAMES:
    return f"{packaged_folder() / file}.py{colon}{variant}"
  known = ", ".join(packaged_names())
  known = f"{known}; for a training, {', '.join(TRAINING_NAMES)}"
  raise ConfigError(f"--config={name}: no such file; expected a path or one of {known}")


def load_config(name: str) -> ConfigDict:
  """Returns what `get_config` of a config file returns for its variant.

  Args:
    name: as in `find_config`.

  Raises:
    ConfigError: there is no such file and no such name.
  """
  path = find_config(name)
  file, colon, variant = path.partition(":")
  with configs_importable(path):
    return runpy.run_path(file)["get_config"](*([variant] if colon else []))


@contextlib.contextmanager
def configs_importable(path: str) -> Iterator[None]:
  """Makes `from configs import default` work in a config file, from wherever it is loaded.

  `configs` means the file's own folder where that has this name, then the package's own configs.
  Without this, it would mean whatever folder of that name Python finds first.

  Args:
    path: as `find_config` returns it.
  """
  beside = pathlib.Path(path.partition(":")[0]).resolve().parent
  package = types.ModuleType(_IMPORTED_AS)
  folders = [beside] if beside.name == "configs" else []
  package.__path__ = [str(folder) for folder in (*folders, packaged_folder())]
  saved = _take_modules()
  sys.modules[_IMPORTED_AS] = package
  try:
    yield
  finally:
    _take_modules()
    sys.modules.update(saved)


def _take_modules() -> dict[str, types.ModuleType]:
  """Removes `configs` and its modules from the imported modules, and returns them."""
  names = [n for n in sys.modules if n == _IMPORTED_AS or n.startswith(f"{_IMPORTED_AS}.")]
  return {name: sys.modules.pop(name) for name in names}
