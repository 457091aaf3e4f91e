"""Writes files as `torch.save` does, without torch."""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import sys
import types
import zipfile
from typing import Any

import numpy as np
import pytest

_STORAGES = {
  "f4": "FloatStorage",
  "f2": "HalfStorage",
  "u2": "BFloat16Storage",
  "i8": "LongStorage",
}


class _Storage:
  def __init__(self, array: np.ndarray, key: str):
    self.array, self.key = array, key


def _fake_torch() -> dict[str, types.ModuleType]:
  """Modules that have torch's names and nothing else."""
  torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
  for name in _STORAGES.values():
    setattr(torch, name, type(name, (), {"__module__": "torch"}))

  def _rebuild_tensor_v2() -> None: ...

  _rebuild_tensor_v2.__module__ = "torch._utils"
  _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
  utils._rebuild_tensor_v2 = _rebuild_tensor_v2
  return {"torch": torch, "torch._utils": utils}


class _Pickler(pickle.Pickler):
  """Pickles arrays as torch does tensors: a uint16 array stands for bfloat16."""

  def __init__(self, file: io.BytesIO, modules: dict[str, types.ModuleType]):
    super().__init__(file, protocol=2)
    self.storages: list[np.ndarray] = []
    self._modules = modules

  def reducer_override(self, obj: Any) -> Any:
    if not isinstance(obj, np.ndarray):
      return NotImplemented
    # A view stays a view: the storage is all of what it looks at.
    base = obj if obj.base is None or not isinstance(obj.base, np.ndarray) else obj.base
    base = base.reshape(-1)
    start = obj.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    strides = tuple(step // obj.itemsize for step in obj.strides)
    storage = _Storage(base, str(len(self.storages)))
    self.storages.append(base)
    rebuild = self._modules["torch._utils"]._rebuild_tensor_v2
    hooks = collections.OrderedDict()
    return rebuild, (storage, start // obj.itemsize, obj.shape, strides, False, hooks)

  def persistent_id(self, obj: Any) -> Any:
    if not isinstance(obj, _Storage):
      return None
    kind = getattr(self._modules["torch"], _STORAGES[obj.array.dtype.str[1:]])
    return "storage", kind, obj.key, "cuda:0", obj.array.size


def write_checkpoint(path: pathlib.Path, value: Any, compression: int = zipfile.ZIP_STORED) -> None:
  """Writes a value; its arrays become tensors, and views of one array share its numbers."""
  modules = _fake_torch()
  with pytest.MonkeyPatch.context() as patch:
    for name, module in modules.items():
      patch.setitem(sys.modules, name, module)
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, modules)
    pickler.dump(value)
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("name/data.pkl", buffer.getvalue())
    archive.writestr("name/byteorder", "little")
    for key, storage in enumerate(pickler.storages):
      archive.writestr(f"name/data/{key}", storage.tobytes())


def model_of(weights: dict[str, np.ndarray]) -> collections.OrderedDict:
  """Weights as a state dict, whose attribute `_metadata` becomes a BUILD."""
  model = collections.OrderedDict(weights)
  model._metadata = collections.OrderedDict({"": {"version": 1}})
  return model
