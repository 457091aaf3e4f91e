"""Errors that a person can act on."""

from __future__ import annotations

import os


class InputError(ValueError):
  """Bad input, reported in one line: the file, the field, the problem and what was expected."""

  def __init__(self, path: str | os.PathLike[str], field: str, problem: str):
    """Builds the message `path: field: problem`.

    Args:
      path: the file or folder at fault.
      field: the field, frame or key inside it; empty where the whole file is at fault.
      problem: what is wrong and what was expected.
    """
    self.path, self.field, self.problem = os.fspath(path), field, problem
    super().__init__(": ".join(part for part in (self.path, field, problem) if part))


class ConfigError(ValueError):
  """A setting that cannot be used; the message is one line that names its key."""


def short(value: object) -> str:
  """Returns the value as text for a message, cut to 60 characters."""
  text = repr(value)
  return text if len(text) <= 60 else text[:57] + "..."


def reason(error: Exception) -> str:
  """Returns why something failed, in one line."""
  return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
