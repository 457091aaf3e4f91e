"""Compilation by XLA itself, without JAX's persistent compilation cache.

JAX switches that cache on or off once for a whole process, and other threads compile meanwhile. So
this module wraps the private function with which JAX checks the switch and lets single threads pass
it by. A JAX version that lacks the function compiles as usual; `compile_fresh` then reports which
programs came from the cache.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import jax
import jax.monitoring

_CACHE_HIT = "/jax/compilation_cache/cache_hits"  # JAX's event


class _ThreadState(threading.local):
  """Whether this thread passes the cache by, and whether the cache supplied a program."""

  bypass = False
  hit = False


_state = _ThreadState()


def compile_fresh(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, bool]:
  """Compiles a lowered program without JAX's persistent cache.

  Returns:
    the program, and whether it is fresh: False where the cache supplied it nevertheless.
  """
  _state.bypass, _state.hit = True, False
  try:
    return lowered.compile(), not _state.hit
  finally:
    _state.bypass = False


def _note_hit(event: str, **_: Any) -> None:
  if event == _CACHE_HIT:
    _state.hit = True


def _wrap_cache_check() -> None:
  try:
    from jax._src import compilation_cache

    check = compilation_cache.is_cache_used
  except (ImportError, AttributeError):
    return

  @functools.wraps(check)
  def is_cache_used(*args: Any, **kwargs: Any) -> bool:
    return not _state.bypass and check(*args, **kwargs)

  compilation_cache.is_cache_used = is_cache_used


jax.monitoring.register_event_listener(_note_hit)
_wrap_cache_check()
