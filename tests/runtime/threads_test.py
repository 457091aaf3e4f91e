"""Thread pools: order, errors, bounded queues.

Threads wait for each other's events, never for a time; what must block is released by a timer, and
whether that comes early or late, the outcome is the same.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from jaxsplat_mouse.runtime.threads import (
  FetchPool,
  WriteQueue,
  ordered_map,
  read_ahead,
  side_by_side,
)

PATIENCE = 60  # seconds until a test that hangs fails
SOON = 0.1


def wait_for(event: threading.Event) -> None:
  assert event.wait(PATIENCE)


def open_soon(gate: threading.Event) -> None:
  timer = threading.Timer(SOON, gate.set)
  timer.daemon = True
  timer.start()


@pytest.mark.parametrize("ahead", [False, True])
def test_items_come_in_order_with_what_was_read(ahead: bool) -> None:
  assert list(read_ahead([3, 1, 2], lambda x: 10 * x, ahead)) == [(3, 30), (1, 10), (2, 20)]
  assert list(read_ahead([], lambda x: x, ahead)) == []


def test_one_item_ahead_and_no_more() -> None:
  seen: list[int] = []
  items = read_ahead(range(5), seen.append, ahead=True)
  assert next(items) == (0, None)
  items.close()  # waits for what is being read
  assert seen == [0, 1]
  assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_an_error_of_reading_comes_out() -> None:
  def read(x: int) -> int:
    raise OSError(str(x))

  with pytest.raises(OSError, match="0"):
    list(read_ahead([0, 1], read, ahead=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_several_results_are_computed_at_a_time_and_come_in_order(threads: int) -> None:
  together = threading.Barrier(threads, timeout=PATIENCE)

  def compute(x: int) -> int:
    together.wait()
    return 10 * x

  results = ordered_map(compute, range(6), threads)
  assert list(results) == [(x, 10 * x) for x in range(6)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_all_items_side_by_side(count: int) -> None:
  together = threading.Barrier(max(count, 1), timeout=PATIENCE)

  def compute(x: int) -> int:
    together.wait()
    return 10 * x

  assert side_by_side(compute, range(count)) == [10 * x for x in range(count)]


def test_results_are_fetched_in_a_thread() -> None:
  here = threading.current_thread()
  with FetchPool(threads=1, most=1) as pool:
    launched, fetched = pool.submit(
      threading.current_thread, lambda launched: (launched, threading.current_thread())
    )
    assert launched is here
    assert fetched.result(PATIENCE)[0] is here
    assert fetched.result()[1].name.startswith("fetcher")


def test_the_device_holds_a_bounded_number_of_results() -> None:
  gate, fetched = threading.Event(), []

  def fetch(name: str) -> None:
    wait_for(gate)
    fetched.append(name)

  with FetchPool(threads=2, most=2) as pool:
    pool.submit(lambda: "a", fetch)
    pool.submit(lambda: "b", fetch)
    open_soon(gate)
    assert pool.submit(lambda: len(fetched), lambda _: None)[0] >= 1  # waits for a or b


def test_errors_of_launching_and_fetching_leave_room() -> None:
  with FetchPool(threads=1, most=1) as pool:
    for _ in range(2):
      with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0, lambda _: None)
      launched, fetched = pool.submit(lambda: 0, lambda zero: 1 // zero)
      assert launched == 0 and isinstance(fetched.exception(PATIENCE), ZeroDivisionError)


def test_outcomes_come_in_order_in_the_callers_thread() -> None:
  got: list[tuple[str, object, bool]] = []
  main = threading.current_thread()
  ended = [threading.Event() for _ in range(6)]

  def make_job(i: int) -> Callable[[], int]:
    def job() -> int:  # of three jobs at a time, the last ends first
      if i % 3 < 2:
        wait_for(ended[i + 1])
      ended[i].set()
      return i

    return job

  note = lambda name, outcome: got.append((name, outcome, threading.current_thread() is main))
  with WriteQueue(note, threads=3) as queue:
    for i in range(6):
      queue.submit(str(i), make_job(i))
  assert got == [(str(i), i, True) for i in range(6)]


def test_an_error_belongs_to_its_job() -> None:
  got: dict[str, object] = {}
  with WriteQueue(got.__setitem__, threads=1) as queue:
    queue.submit("a", lambda: 1 // 0)
    queue.submit("b", lambda: 2)
  assert isinstance(got["a"], ZeroDivisionError) and got["b"] == 2


def test_jobs_without_a_size_are_bounded_by_the_threads() -> None:
  """One of three jobs runs and one waits; the third is submitted once the first has ended."""
  gate, got = threading.Event(), []
  with WriteQueue(lambda name, _: got.append(name), threads=1) as queue:
    queue.submit("a", lambda: wait_for(gate))
    queue.submit("b", lambda: wait_for(gate))
    assert got == []
    open_soon(gate)
    queue.submit("c", lambda: None)
    assert got[0] == "a"
  assert got == ["a", "b", "c"]


def test_jobs_are_bounded_by_their_memory() -> None:
  """There is room for two jobs of 40 bytes in 100; the third waits for the first."""
  gate, got = threading.Event(), []
  with WriteQueue(lambda name, _: got.append(name), threads=4, most_bytes=100) as queue:
    queue.submit("a", lambda: wait_for(gate), 40)
    queue.submit("b", lambda: wait_for(gate), 40)
    assert got == []
    open_soon(gate)
    queue.submit("c", lambda: None, 40)
    assert got[0] == "a"
  assert got == ["a", "b", "c"]


def test_a_job_larger_than_all_room_runs_alone() -> None:
  got: list[str] = []
  with WriteQueue(lambda name, _: got.append(name), 2, most_bytes=10) as queue:
    for name in "abc":
      queue.submit(name, lambda: None, 1000)
  assert got == list("abc")


def test_the_threads_end_though_reporting_fails() -> None:
  def fail(name: str, outcome: object) -> None:
    raise RuntimeError(name)

  with pytest.raises(RuntimeError, match="a"), WriteQueue(fail, threads=1) as queue:
    queue.submit("a", lambda: None)
  assert not [t for t in threading.enumerate() if t.name.startswith("writer")]


def test_pools_in_a_stack_end_in_reverse_order() -> None:
  """A job may wait for what a pool that was entered before fetches."""
  gate, got = threading.Event(), []
  with contextlib.ExitStack() as stack:
    fetchers = stack.enter_context(FetchPool(threads=1, most=4))
    queue = stack.enter_context(WriteQueue(lambda _, outcome: got.append(outcome), threads=1))
    _, fetched = fetchers.submit(lambda: 7, lambda x: (wait_for(gate), x)[1])
    queue.submit("a", fetched.result)
    open_soon(gate)
  assert got == [7]
