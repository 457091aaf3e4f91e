"""Reading ahead and writing behind: order, errors, bounded queues."""

from __future__ import annotations

import threading
import time

import pytest

from jaxsplat_mouse.runtime.host import host_memory
from jaxsplat_mouse.runtime.threads import WriteQueue, ordered_map, read_ahead


@pytest.mark.parametrize("ahead", [False, True])
def test_items_come_in_order_with_what_was_read(ahead: bool) -> None:
  assert list(read_ahead([3, 1, 2], lambda x: 10 * x, ahead)) == [(3, 30), (1, 10), (2, 20)]
  assert list(read_ahead([], lambda x: x, ahead)) == []


def test_one_item_ahead_and_no_more() -> None:
  seen: list[int] = []
  items = read_ahead(range(5), seen.append, ahead=True)
  next(items)
  time.sleep(0.1)
  assert seen == [0, 1]
  items.close()
  assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_an_error_of_reading_comes_out() -> None:
  def read(x: int) -> int:
    raise OSError(str(x))

  with pytest.raises(OSError, match="0"):
    list(read_ahead([0, 1], read, ahead=True))


def test_outcomes_come_in_order_in_the_callers_thread() -> None:
  got: list[tuple[str, object, bool]] = []
  main = threading.current_thread()
  note = lambda name, outcome: got.append((name, outcome, threading.current_thread() is main))
  writers: WriteQueue[int] = WriteQueue(note, threads=3)
  for i in range(6):
    writers.submit(str(i), lambda i=i: (time.sleep(0.03 * (6 - i)), i)[1])
  writers.close()
  assert got == [(str(i), i, True) for i in range(6)]


def test_an_error_belongs_to_its_job() -> None:
  got: dict[str, object] = {}
  writers: WriteQueue[int] = WriteQueue(got.__setitem__, threads=1)
  writers.submit("a", lambda: 1 // 0)
  writers.submit("b", lambda: 2)
  writers.close()
  assert isinstance(got["a"], ZeroDivisionError) and got["b"] == 2


def test_jobs_on_their_way_are_bounded() -> None:
  gate, running = threading.Event(), []
  writers: WriteQueue[None] = WriteQueue(lambda name, outcome: None, threads=1)

  def job() -> None:
    running.append(1)
    gate.wait(5)

  threading.Timer(0.2, gate.set).start()
  started = time.monotonic()
  for name in "abc":  # the third waits for the first
    writers.submit(name, job)
  assert time.monotonic() - started > 0.15
  writers.close()
  assert len(running) == 3


def test_jobs_are_bounded_by_their_memory() -> None:
  """Two jobs of 40 bytes have room in 100; the third waits for the first."""
  gate, most = threading.Event(), []
  writers: WriteQueue[None] = WriteQueue(lambda name, outcome: None, threads=4, most_bytes=100)
  threading.Timer(0.2, gate.set).start()
  started = time.monotonic()
  for name in "ab":
    writers.submit(name, lambda: most.append(gate.wait(5)), 40)
  assert time.monotonic() - started < 0.15
  writers.submit("c", lambda: None, 40)
  assert time.monotonic() - started > 0.15
  writers.close()


def test_a_job_larger_than_all_room_is_done_alone() -> None:
  got: list[str] = []
  writers: WriteQueue[None] = WriteQueue(lambda name, outcome: got.append(name), 2, most_bytes=10)
  for name in "abc":
    writers.submit(name, lambda: None, 1000)
  writers.close()
  assert got == list("abc")


@pytest.mark.parametrize("threads", [1, 3])
def test_several_are_read_at_a_time_and_come_in_order(threads: int) -> None:
  active, peak = [], []

  def read(x: int) -> int:
    active.append(x)
    peak.append(len(active))
    time.sleep(0.02 * (5 - x))
    active.remove(x)
    return 10 * x

  assert list(ordered_map(read, range(5), threads)) == [(x, 10 * x) for x in range(5)]
  assert max(peak) == threads


def test_memory_is_known() -> None:
  assert 1 << 28 < host_memory() < 1 << 50
