"""Signals: the first is noted, the second kills, the handlers are restored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxsplat_mouse.runtime.signals import Stopped, StopRequest


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_raised_when_asked(number: int, status: int) -> None:
  before = signal.getsignal(number)
  with StopRequest() as stop:
    stop.check()
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested
    with pytest.raises(Stopped) as stopped:
      stop.check()
    assert stopped.value.exit_status == status
    assert signal.getsignal(number) == signal.SIG_DFL
  assert signal.getsignal(number) == before


def test_stopped_is_no_exception() -> None:
  assert not issubclass(Stopped, Exception)


def test_a_second_one_kills() -> None:
  code = (
    "import os, signal\n"
    "from jaxsplat_mouse.runtime.signals import StopRequest\n"
    "with StopRequest():\n"
    "  os.kill(os.getpid(), signal.SIGINT)\n"
    "  print('noted', flush=True)\n"
    "  os.kill(os.getpid(), signal.SIGINT)\n"
    "  print('alive', flush=True)\n"
  )
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert found.returncode == -signal.SIGINT
  assert found.stdout == "noted\n"


def test_other_threads_leave_signals_alone() -> None:
  before = signal.getsignal(signal.SIGINT)
  seen = []

  def enter() -> None:
    with StopRequest() as stop:
      seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert seen == [(False, before)]
