"""HDF5 files that nobody vouches for: plain arrays of bounded size, out of the file itself.

Links into other files and arrays that are stored or composed elsewhere are refused: a calibration
has no need of them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason

MAX_BYTES = 2 << 30  # of one array, as its header declares it


@contextlib.contextmanager
def open_hdf5(path: pathlib.Path) -> Iterator[Any]:
  """An open `h5py.File`; whatever the library raises while it is open becomes an `InputError`.

  Raises:
    InputError: no such file, no HDF5 file, one that is cut short, or h5py is not installed.
  """
  try:
    import h5py
  except ImportError:
    problem = "reading HDF5 takes h5py: pip install 'jaxsplat-mouse[video]'"
    raise InputError(path, "", problem) from None
  if not path.is_file():
    raise InputError(path, "", "no such file")
  try:
    with h5py.File(path, "r") as file:
      yield file
  except InputError:
    raise
  except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
    problem = f"broken or cut short ({reason(error)}); expected a whole HDF5 file"
    raise InputError(path, "", problem) from None


def get_child(path: pathlib.Path, field: str, group: Any, key: str) -> Any:
  """The group or dataset `key` of a group; `field` names it in messages.

  Raises:
    InputError: it is missing, or a link to elsewhere.
  """
  import h5py

  if not isinstance(group, h5py.Group) or key not in group:
    found = ", ".join(list(group)[:12]) if isinstance(group, h5py.Group) else "an array"
    raise InputError(path, field, f"missing; found {found or 'nothing'}")
  if not isinstance(group.get(key, getlink=True), h5py.HardLink):
    raise InputError(path, field, "a link to elsewhere; expected the data itself")
  return group[key]


def read_array(path: pathlib.Path, field: str, dataset: Any) -> np.ndarray:
  """The values of a dataset.

  Raises:
    InputError: it is a group, kept in other files, or larger than `MAX_BYTES`.
  """
  import h5py

  if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
    raise InputError(path, field, "no array; expected numbers")
  if dataset.external or dataset.is_virtual:
    raise InputError(path, field, "stored in other files; expected the data itself")
  if dataset.size * dataset.dtype.itemsize > MAX_BYTES:
    limit = f"expected at most {MAX_BYTES >> 30} GiB"
    raise InputError(path, field, f"claims the shape {dataset.shape}; {limit}")
  return dataset[()]
