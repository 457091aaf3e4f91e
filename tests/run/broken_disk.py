"""A disk that fails: full, or read-only from a moment on, for everything below one folder."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

NO_SPACE, READ_ONLY = errno.ENOSPC, errno.EROFS


@contextlib.contextmanager
def broken(folder: pathlib.Path, code: int, after: int = 0) -> Iterator[None]:
  """Makes writing below `folder` fail with an `errno` code once `after` writings have begun."""
  count = 0

  def check(path: Any) -> None:
    nonlocal count
    if isinstance(path, (str, os.PathLike)) and folder in pathlib.Path(path).absolute().parents:
      count += 1
      if count > after:
        raise OSError(code, os.strerror(code), os.fspath(path))

  def guard_open(original: Any) -> Any:
    def guarded(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
      if set(mode) & set("wxa+"):
        check(path)
      return original(path, mode, *args, **kwargs)

    return guarded

  def guard_os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
      check(path)
    return os_open(path, flags, *args, **kwargs)

  def guard_mkdir(path: Any, *args: Any, **kwargs: Any) -> Any:
    check(path)
    return mkdir(path, *args, **kwargs)

  os_open, mkdir = os.open, os.mkdir
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builtins, "open", guard_open(builtins.open))
    patch.setattr(io, "open", guard_open(io.open))
    patch.setattr(os, "open", guard_os_open)
    patch.setattr(os, "mkdir", guard_mkdir)
    yield
