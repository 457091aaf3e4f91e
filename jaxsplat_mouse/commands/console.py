"""What all commands share: flags, a help that teaches, errors in one line, exit statuses."""

from __future__ import annotations

import logging as standard_logging
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.run.config_keys import closest, flatten

FAILED, INTERRUPTED = 1, 130
CONFIG_DEFAULT = "configs/2dgs.py"


def run(main: Callable[..., int], doc: str, own_flags: Sequence[str], positional: str = "") -> None:
  """Parses flags, runs a command and exits with its status.

  `ConfigError`, `InputError` and flags that cannot be used print one line and exit with 1.

  Args:
    main: the command; its flags are read from absl's.
    doc: what the command does, with examples.
    own_flags: names of its flags, for `--help`.
    positional: name of the one argument without a flag, which `main` is then called with.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    if any(argument in ("-h", "--help", "-help") for argument in argv[1:]):
      print(help_text(doc, own_flags))
      sys.exit(0)
    return _parse(list(argv))

  def start(argv: Sequence[str]) -> int:
    _log_plainly()
    given = argv[1:]
    if len(given) > bool(positional):
      return _refuse(f"{given[-1]}: unexpected argument; expected --flag=value")
    if len(given) < bool(positional):
      return _refuse(f"{positional}: missing; see --help")
    try:
      return main(*given)
    except (ConfigError, InputError) as error:
      return _refuse(str(error))
    except KeyboardInterrupt:
      return INTERRUPTED

  if "config" in flags.FLAGS and config_path(sys.argv) is None:
    sys.argv.insert(1, f"--config={CONFIG_DEFAULT}")
  app.run(start, flags_parser=parse)


class _PlainHandler(standard_logging.Handler):
  """`warning: ...` on the standard error of the moment, which progress bars take over."""

  def emit(self, record: standard_logging.LogRecord) -> None:
    """Prints one record."""
    print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _log_plainly() -> None:
  """Warnings without date, thread and line, unless --verbosity asks for more."""
  if flags.FLAGS["verbosity"].present:
    return
  logging.set_verbosity(logging.WARNING)
  root = standard_logging.getLogger()
  root.removeHandler(logging.get_absl_handler())
  root.addHandler(_PlainHandler())


def _refuse(problem: str) -> int:
  print(f"error: {problem}", file=sys.stderr)
  return FAILED


def help_text(doc: str, own_flags: Sequence[str]) -> str:
  """The command's description and its flags."""
  rows = []
  for flag in (flags.FLAGS[name] for name in own_flags):
    default = f" (default: {flag.default_as_str})" if flag.default is not None else ""
    rows.append(f"  --{flag.name}\n      {flag.help}{default}")
  return "\n".join([doc.strip(), "", "Flags:", *rows])


def _parse(argv: list[str]) -> list[str]:
  """Reads flags; what cannot be used ends the program with one line."""
  path = config_path(argv)
  if path is not None:
    problem = _config_file_problem(path)
    if problem:
      sys.exit(_refuse(problem))
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(_refuse(_short(str(error))))
  except (AttributeError, KeyError) as error:  # an override of a key that the config lacks
    sys.exit(_refuse(_unknown_key(argv, path) or _short(str(error))))


def _short(text: str) -> str:
  """The line of a message that says what is wrong."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if lines and "Error whilst parsing config file" in lines[0]:
    return lines[-1].partition("Error: ")[2] or lines[-1]
  return re.sub(r"^flag (--\S+?=)", r"\1", lines[0]) if lines else "flags cannot be read"


def define_config() -> flags.FlagHolder[ConfigDict]:
  """The `--config` flag; to be called by a command that takes one."""
  return config_flags.DEFINE_config_file(
    "config",
    None,  # `run` puts the default into the arguments: here it would be parsed on import
    "A file of configs/, and any of its keys as --config.KEY=VALUE; configs/NAME.py:preview "
    f"shrinks it for a quick look. (default: '{CONFIG_DEFAULT}')",
  )


def config_path(argv: Sequence[str]) -> str | None:
  """File and variant that `--config` names; None where it names none."""
  for i, argument in enumerate(argv):
    if re.match(r"--?config=", argument):
      return argument.partition("=")[2]
    if argument in ("--config", "-config") and i + 1 < len(argv):
      return argv[i + 1]
  return None


def _config_file_problem(path: str) -> str | None:
  """Why a config file cannot be loaded; makes the `configs` package beside it importable."""
  file = pathlib.Path(path.partition(":")[0])
  if not file.is_file():
    return f"--config={path}: no such file; expected one of configs/"
  sys.path.append(str(file.resolve().parent.parent))
  return None


def load_config(path: str) -> ConfigDict:
  """What `get_config` of a config file returns; the part of `path` behind a colon is its argument.

  Raises:
    OSError: no such file.
  """
  file, colon, variant = path.partition(":")
  return runpy.run_path(file)["get_config"](*([variant] if colon else []))


def _unknown_key(argv: Sequence[str], path: str | None) -> str | None:
  """`fit.iteratons: unknown key; did you mean fit.iterations?` for the first such override."""
  if path is None:
    return None
  keys = flatten(load_config(path))
  sections = {key.partition(".")[0] for key in keys}
  for argument in argv:
    match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    if match and match[1] not in keys and match[1] not in sections:
      return f"{match[1]}: unknown key{closest(match[1], keys)}"
  return None
