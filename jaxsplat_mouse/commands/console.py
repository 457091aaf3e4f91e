"""What all commands share: flags, a help that teaches, errors in one line, exit statuses.

A command is a module of this package:

    __doc__                         its help: what it does, with examples and exit statuses
    ARGUMENT = "WORKDIR"            optional: the name of the one argument without a flag
    define_flags(flags)             defines its flags
    CONFIG = "gslrm:small"          optional: its config where none is given
    main(flags) or main(flags, argument)    does the work and returns the exit status

`python -m jaxsplat_mouse.NAME` is a file of three lines that calls `start` with the module. What a
command needs only for its work, it imports in `main`: `--help` must not wait for JAX.
"""

from __future__ import annotations

import faulthandler
import logging as standard_logging
import re
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

from absl import flags as absl_flags
from absl import logging
from absl.flags import FlagValues
from ml_collections import config_flags

from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.run import config_files
from jaxsplat_mouse.run.config_keys import closest, flatten

FAILED, INTERRUPTED = 1, 130
DEFAULT_CONFIG = "2dgs"


def start(command: ModuleType) -> None:
  """Runs a command with the arguments of this process, and exits with its status."""
  faulthandler.enable()  # a crash of a driver or a compiler then shows where it happened
  sys.exit(run_command(command, sys.argv))


def run_command(command: ModuleType, argv: Sequence[str]) -> int:
  """Parses flags and runs a command.

  `ConfigError`, `InputError` and flags that cannot be used print one line.

  Args:
    command: a module as the docstring above describes it.
    argv: the name of the program and its arguments.

  Returns:
    the exit status: the command's own, `FAILED`, or `INTERRUPTED` after Ctrl-C.
  """
  flags = FlagValues()
  command.define_flags(flags)
  if any(argument in ("-h", "--help", "-help") for argument in argv[1:]):
    print(help_text(str(command.__doc__), flags))
    return 0
  argument_name = getattr(command, "ARGUMENT", "")
  try:
    given = _parse(flags, argv, getattr(command, "CONFIG", DEFAULT_CONFIG))
    if len(given) > bool(argument_name):
      expected = f"one {argument_name}" if argument_name else "--flag=value"
      return _refuse(f"{given[-1]}: unexpected argument; expected {expected}")
    if len(given) < bool(argument_name):
      return _refuse(f"{argument_name}: missing; see --help")
    return int(command.main(flags, *given))
  except (ConfigError, InputError) as error:
    return _refuse(str(error))
  except KeyboardInterrupt:
    return INTERRUPTED


def required(flags: FlagValues, name: str) -> str:
  """Returns the text of a flag.

  Raises:
    InputError: it was not given.
  """
  value = flags[name].value
  if not value:
    raise InputError(f"--{name}", "", "missing; see --help")
  return str(value)


def define_config(flags: FlagValues, default: str = DEFAULT_CONFIG) -> None:
  """Defines the `--config` flag of a command that takes one.

  Args:
    flags: of the command.
    default: the config where none is given; the command's `CONFIG` says the same.
  """
  names, variant = config_files.packaged_names(), "NAME:preview shrinks it for a quick look"
  if default.partition(":")[0] in config_files.TRAINING_NAMES:
    names, variant = list(config_files.TRAINING_NAMES), "NAME:SIZE chooses a size"
  config_flags.DEFINE_config_file(
    "config",
    None,  # `_parse` inserts the default: here, --help would load it
    f"One of {', '.join(names)}, or a file like theirs; any of its keys as "
    f"--config.KEY=VALUE; {variant}. (default: '{default}')",
    flag_values=flags,
  )


def help_text(doc: str, flags: FlagValues) -> str:
  """Returns the command's description and its flags, in the order of their definition."""
  rows = []
  for flag in (flags[name] for name in flags):
    default = f" (default: {flag.default_as_str})" if flag.default is not None else ""
    text = textwrap.wrap(f"{flag.help}{default}", 94, break_on_hyphens=False)
    rows += [f"  --{flag.name}", *(f"      {line}" for line in text)]
  return "\n".join([doc.strip(), "", "Flags:", *rows])


class _PlainHandler(standard_logging.Handler):
  """Prints `warning: ...` on the standard error of the moment, which progress bars take over."""

  def emit(self, record: standard_logging.LogRecord) -> None:
    """Prints one record."""
    print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _set_up_logging(verbosity: absl_flags.Flag) -> None:
  """Prints warnings without date, thread and line, unless --verbosity asks for more."""
  absl_flags.FLAGS.mark_as_parsed()  # absl's own, which its logging reads
  if verbosity.present:
    logging.use_absl_handler()
    return
  logging.set_verbosity(logging.WARNING)
  root = standard_logging.getLogger()
  root.removeHandler(logging.get_absl_handler())
  if not any(isinstance(handler, _PlainHandler) for handler in root.handlers):
    root.addHandler(_PlainHandler())


def _refuse(problem: str) -> int:
  print(f"error: {problem}", file=sys.stderr)
  return FAILED


def _parse(flags: FlagValues, argv: Sequence[str], config: str) -> list[str]:
  """Reads flags, and returns the arguments without one; `config` is that where none is given.

  Raises:
    InputError: an argument cannot be used.
    ConfigError: the same, of the config.
  """
  verbosity = absl_flags.FLAGS["verbosity"]
  flags["verbosity"] = verbosity
  arguments = [_with_underscores(argument, flags) for argument in argv]
  path = ""
  if "config" in flags:
    path, arguments = _config_first(arguments, config)
  given, sys.argv = sys.argv, arguments  # ml_collections reads overrides of a config there
  try:
    with config_files.configs_importable(path):
      rest = flags(arguments)[1:]
  except absl_flags.Error as error:
    raise InputError("", "", _short(str(error))) from None
  except (AttributeError, KeyError) as error:  # an override of a key that the config lacks
    raise InputError("", "", _unknown_key(arguments, path) or _short(str(error))) from None
  finally:
    sys.argv = given
  _set_up_logging(verbosity)
  return rest


def _with_underscores(argument: str, flags: FlagValues) -> str:
  """Returns `--may-touch-edge` as the flag is spelled, `--may_touch_edge`."""
  name, equals, value = argument.partition("=")
  spelled = name[2:].replace("-", "_")
  if name[:2] == "--" and (spelled in flags or spelled.removeprefix("no") in flags):
    return f"--{spelled}{equals}{value}"
  return argument


def _config_first(argv: Sequence[str], default: str) -> tuple[str, list[str]]:
  """Returns the path of the config and the arguments, in which it comes before its overrides.

  Raises:
    ConfigError: there is no such config.
  """
  name, others = default, list(argv[1:])
  for i, argument in enumerate(others):
    if re.match(r"--?config=", argument):
      name = others.pop(i).partition("=")[2]
      break
    if argument in ("--config", "-config") and i + 1 < len(others):
      name = others[i + 1]
      del others[i : i + 2]
      break
  path = config_files.find_config(name)
  return path, [argv[0], f"--config={path}", *others]


def _short(text: str) -> str:
  """Returns the line of a message that names the problem."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if lines and "Error whilst parsing config file" in lines[0]:
    return lines[-1].partition("Error: ")[2] or lines[-1]
  return re.sub(r"^flag (--\S+?=)", r"\1", lines[0]) if lines else "flags cannot be read"


def _unknown_key(argv: Sequence[str], path: str) -> str | None:
  """Returns `fit.iteratons: unknown key; did you mean fit.iterations?` for the first such one."""
  keys = flatten(config_files.load_config(path)) if path else {}
  sections = {key.partition(".")[0] for key in keys}
  for argument in argv:
    match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    if match and match[1] not in keys and match[1] not in sections:
      return f"{match[1]}: unknown key{closest(match[1], keys)}"
  return None
