"""Reads untrusted HDF5 files: plain arrays of bounded size that are stored in the file itself.

Links into other files, and arrays that are stored or composed elsewhere, are refused: calibrations
do not need them.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason

MAX_BYTES = 2 << 30  # of one array, by the size in its header


@contextlib.contextmanager
def open_hdf5(path: pathlib.Path) -> Iterator[Any]:
  """Yields an open `h5py.File`; what the library raises while it is open becomes `InputError`.

  Raises:
    InputError: there is no such file, it is not HDF5 or cut short, or h5py is not installed.
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
  """Returns the group or dataset `key` of a group.

  Args:
    path: the file, for messages.
    field: the name of the child in the file, for messages.
    group: an open group.
    key: name of the child in the group.

  Raises:
    InputError: it is missing, or a link into another file or place.
  """
  import h5py

  if not isinstance(group, h5py.Group) or key not in group:
    found = ", ".join(list(group)[:12]) if isinstance(group, h5py.Group) else "an array"
    raise InputError(path, field, f"missing; found {found or 'nothing'}")
  if not isinstance(group.get(key, getlink=True), h5py.HardLink):
    raise InputError(path, field, "a link to elsewhere; expected the data itself")
  return group[key]


def read_array(path: pathlib.Path, field: str, dataset: Any) -> np.ndarray:
  """Reads the values of a dataset.

  Args:
    path: the file, for messages.
    field: the name of the dataset in the file, for messages.
    dataset: an open dataset.

  Raises:
    InputError: it is a group, stored in other files, or larger than `MAX_BYTES`.
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


def copy_with_arrays(
  source: pathlib.Path, target: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> None:
  """Copies a file, with other values in some of its arrays, which become float64.

  Args:
    source: the file.
    target: the copy.
    arrays: new values by place in the file; each gets the shape that the file has there.

  Raises:
    InputError: the file cannot be read.
    OSError: the copy cannot be written.
  """
  import h5py

  with open_hdf5(source):  # names what is wrong with the file
    pass
  shutil.copyfile(source, target)
  with h5py.File(target, "r+") as file:
    for place, values in arrays.items():
      shape, attributes = file[place].shape, dict(file[place].attrs)
      del file[place]
      file[place] = np.asarray(values, np.float64).reshape(shape)
      file[place].attrs.update(attributes)
