"""The engine `ray`: its schedule on a stand-in for Ray, then the bytes of runs on Ray itself."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.run import batches, job, ray_cluster, ray_pool
from jaxsplat_mouse.run.engine import RunPlan
from jaxsplat_mouse.run.ray_tasks import DEATHS_BEFORE_SPLIT, MOST_DEATHS
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest
from tests.run.fake_ray import Attempt, FakeRay, Script
from tests.run_fixtures import CONFIG_FILE, results, tiny_config, write_mice

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Recorder:
  """The events and the lines of a run."""

  def __init__(self) -> None:
    """Starts empty."""
    self.done: list[str] = []
    self.failures: dict[str, str] = {}
    self.lines: list[str] = []

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """A scene is done."""
    assert isinstance(outcome, SceneRecord)
    self.done.append(name)

  def failed(self, name: str, error: Exception) -> None:
    """A scene has failed."""
    assert name not in self.failures
    self.failures[name] = str(error)

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Not called: fits run elsewhere."""

  def line(self, text: str) -> None:
    """Keeps a line."""
    self.lines.append(text)

  def stage(self, text: str) -> None:
    """Ignores what a terminal shows."""


@dataclasses.dataclass
class Played:
  """A cluster on a fake Ray, and the outcome of its run."""

  ray: FakeRay
  cluster: ray_cluster.Cluster
  workdir: Workdir
  stop: StopRequest
  events: Recorder = dataclasses.field(default_factory=Recorder)

  def run(
    self,
    groups: Sequence[Sequence[str]],
    fitted: Sequence[str] = (),
    starts: Mapping[str, str] | None = None,
  ) -> Recorder:
    """Runs batches of scenes that all need new crops, after rendering some."""
    plans = [
      dataclasses.replace(plan, starts={n: s for n, s in (starts or {}).items() if n in plan.names})
      for group in groups
      for plan in batches.new_plans(self.workdir, group, 99)
    ]
    names = [*fitted, *(name for group in groups for name in group)]
    work = RunPlan(
      sources={name: Source(name=name, recording="r") for name in names},
      scales={},
      fitted=tuple(fitted),
      plans=tuple(plans),
      one_batch=False,
    )
    self.cluster.run(work, self.events, self.events)  # type: ignore[arg-type]
    assert sorted([*self.events.done, *self.events.failures]) == sorted(names), "each scene once"
    return self.events

  def attempts(self, method: str) -> list[Attempt]:
    """The calls of a method that workers executed."""
    return [attempt for attempt in self.ray.attempts if attempt.method == method]


Play = Callable[..., Played]


@pytest.fixture
def play(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Play:
  """Builds a cluster on a fake Ray; time passes only in it."""

  def build(script: Script | None = None, workers: int = 2, gpus: int = 0) -> Played:
    ray = FakeRay(script or Script())
    ray.gpus = gpus
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_cluster, "time", ray)
    monkeypatch.setattr(ray_pool, "time", ray)
    config = tiny_config("nowhere")
    config.execution.workers = workers
    workdir, stop = Workdir(tmp_path / "w"), StopRequest()
    workdir.make()
    cluster = ray_cluster.Cluster(Settings.from_config(config), workdir, stop)
    return Played(ray, cluster, workdir, stop)

  return build


def dies_of(name: str, method: str = "fit") -> Callable[[Attempt], bool]:
  """A scene that kills every worker that executes a method on it."""
  return lambda attempt: attempt.method == method and name in attempt.names


def test_undisturbed_batches_are_read_ahead_and_computed_one_after_the_other(play: Play) -> None:
  played = play(workers=1, gpus=1)
  events = played.run([["a", "b"], ["c"], ["d"]], fitted=["e"])
  assert events.done == ["e", "a", "b", "c", "d"] and not events.lines
  # Each batch but the first is read while the worker computes the work before it.
  assert played.ray.now == pytest.approx(5 + 4 + 3 * 10, abs=0.5)


def test_a_worker_that_dies_costs_nothing_while_its_replacement_is_not_up(play: Play) -> None:
  played = play(Script(restart_seconds=300.0))
  played.ray.at(10.0, lambda: played.ray.die(played.ray.actors[0]))
  events = played.run([["a", "b"], ["c", "d"], ["e", "f"]])
  assert not events.failures
  assert len(played.ray.deaths) == 1
  assert [line for line in events.lines if "A worker died with a, b" in line] == events.lines
  # The other worker does all of it meanwhile, the lost batch first.
  fits = [(attempt.names, attempt.worker) for attempt in played.attempts("fit")]
  assert fits == [(("a", "b"), 0), (("c", "d"), 1), (("a", "b"), 1), (("e", "f"), 1)]
  assert played.ray.now < 60


def test_a_replacement_gets_work_as_soon_as_it_answers(play: Play) -> None:
  played = play(Script(restart_seconds=20.0))
  played.ray.at(10.0, lambda: played.ray.die(played.ray.actors[0]))
  played.run([[str(i)] for i in range(12)])
  assert {a.process for a in played.ray.attempts if a.worker == 0} == {1, 2}


def test_a_slow_replacement_of_the_only_worker_is_waited_for(play: Play) -> None:
  played = play(Script(restart_seconds=3600.0), workers=1)
  played.ray.at(10.0, lambda: played.ray.die(played.ray.actors[0]))
  events = played.run([["a"], ["b"]])
  assert not events.failures and len(played.attempts("fit")) == 3
  waits = [line for line in events.lines if line.startswith("The cluster has had no worker for")]
  assert 50 <= len(waits) <= 60  # one each minute
  assert "being restarted" in waits[0]


def test_all_workers_may_be_down_for_a_while_again_and_again(play: Play) -> None:
  played = play(Script(restart_seconds=100.0), workers=3)
  for time in (8.0, 130.0):  # the second one falls into the second attempt
    for number in range(3):
      played.ray.at(time, lambda number=number: played.ray.die(played.ray.actors[number]))  # type: ignore[misc]
  events = played.run([["a"], ["b"], ["c"], ["d"]])
  assert not events.failures and sorted(events.done) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("apart", [0.0, 0.1, 1.0])
def test_workers_that_die_one_after_the_other_are_no_fault_of_the_scene_they_hand_on(
  play: Play, apart: float
) -> None:
  played = play(Script(restart_seconds=100.0), workers=6)
  for number, actor in enumerate(played.ray.actors):
    played.ray.at(10.0 + apart * number, lambda actor=actor: played.ray.die(actor))  # type: ignore[misc]
  assert played.run([["a"]]).done == ["a"]


def test_a_worker_that_dies_before_a_call_reaches_it_is_not_counted(play: Play) -> None:
  played = play(Script(kills=lambda a: a.method == "watch" and a.process < 10), workers=1)
  events = played.run([["a"]])
  assert events.done == ["a"] and played.attempts("fit")[0].process == 10
  assert not any("died" in line for line in events.lines)


def test_one_scene_that_kills_workers_costs_only_itself(play: Play) -> None:
  played = play(Script(kills=dies_of("b")))
  events = played.run([["a", "b", "c", "d"], ["e", "f"]])
  assert sorted(events.done) == ["a", "c", "d", "e", "f"]
  assert events.failures == {"b": "3 workers died while they worked on this scene alone"}
  groups = [attempt.names for attempt in played.attempts("fit") if "b" in attempt.names]
  whole, half, alone = ("a", "b", "c", "d"), ("a", "b"), ("b",)
  assert (
    groups == [whole] * DEATHS_BEFORE_SPLIT + [half] * DEATHS_BEFORE_SPLIT + [alone] * MOST_DEATHS
  )
  assert any("a, b, c, d; the batch is halved" in line for line in events.lines)
  assert not list(played.workdir.checkpoints.glob("*/"))


@pytest.mark.parametrize("method", ["prepare", "render"])
def test_a_scene_may_kill_workers_when_it_is_read_or_rendered(play: Play, method: str) -> None:
  played = play(Script(kills=dies_of("b", method)), gpus=2)
  fitted, groups = (["a", "b", "c"], [["d"]]) if method == "render" else ([], [["a", "b", "c"]])
  events = played.run([*groups, ["e", "f"], ["g"]], fitted)
  assert list(events.failures) == ["b"]


def test_a_batch_that_was_only_held_or_read_beside_a_killer_is_not_blamed(play: Play) -> None:
  played = play(Script(kills=dies_of("bad")), workers=1, gpus=1)
  events = played.run([["bad"], ["a"], ["b"], ["c"]])
  assert list(events.failures) == ["bad"] and events.done == ["a", "b", "c"]
  # After its first death a suspect has the worker to itself.
  suspects = [death for death in played.ray.deaths[1:] if any("bad" in a.names for a in death)]
  assert len(suspects) == MOST_DEATHS - 1 and all(len(death) == 1 for death in suspects)


def test_crops_are_chosen_in_the_order_of_the_batches_though_workers_die(
  play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
  chosen: list[tuple[int, int]] = []

  def choose(*given: Any) -> tuple[int, int]:
    chosen.append((32 + len(chosen), 32))
    return chosen[-1]

  monkeypatch.setattr(batches, "choose_shape", choose)
  first = iter([True])
  played = play(
    # The first batch dies as it is read, when all other slots are held by batches that wait for it.
    Script(kills=lambda a: a.names == ("a",) and next(first, False), restart_seconds=50.0),
    gpus=2,
  )
  events = played.run([["a"], ["b"], ["c"], ["d"]])
  assert not events.failures
  shapes = {attempt.names[0]: attempt.shape for attempt in played.attempts("fit")}
  assert shapes == {"a": (32, 32), "b": (33, 32), "c": (34, 32), "d": (35, 32)}


def test_halves_of_an_unread_batch_need_no_free_slot(play: Play) -> None:
  played = play(Script(kills=dies_of("b", "prepare")), gpus=2)
  events = played.run([["a", "b"], ["c"], ["d"], ["e"], ["f"], ["g"]])
  assert list(events.failures) == ["b"] and len(events.done) == 6


def test_a_worker_that_ray_gives_up_is_started_anew(play: Play) -> None:
  # The constructor of the second process raises, as where a GPU is still held by the first.
  played = play(Script(starts=lambda worker, process: worker > 0 or process == 1), workers=1)
  played.ray.at(10.0, lambda: played.ray.die(played.ray.actors[0]))
  events = played.run([["a"], ["b"]])
  assert not events.failures and len(played.ray.actors) == 2
  assert played.ray.actors[0].is_dead


def test_a_worker_that_was_out_of_reach_is_killed_before_it_works_on(play: Play) -> None:
  played = play(Script(seconds={"prepare": 1.0, "fit": 100.0}))
  played.ray.at(10.0, lambda: played.ray.lose_connection(played.ray.actors[0], 20.0))
  events = played.run([["a"], ["b"]])
  assert not events.failures
  assert played.ray.actors[0].process == 2  # killed once, and started again by Ray


def test_a_call_that_raises_fails_its_scenes_at_once(play: Play) -> None:
  played = play(Script(raises=lambda a: a.method == "fit" and "a" in a.names))
  events = played.run([["a", "b"], ["c"]])
  assert events.failures == dict.fromkeys("ab", "the method raised") and events.done == ["c"]


def test_a_signal_ends_the_wait_for_workers(play: Play) -> None:
  played = play(Script(restart_seconds=1e9), workers=1)
  played.ray.at(10.0, lambda: played.ray.die(played.ray.actors[0]))
  played.ray.at(500.0, lambda: setattr(played.stop, "number", signal.SIGTERM))
  with pytest.raises(Stopped):
    played.run([["a"], ["b"]])
  assert played.ray.now == pytest.approx(500.0, abs=1.0)
  assert not played.events.done and not played.events.failures


def test_a_signal_has_workers_save_and_fails_nothing(play: Play) -> None:
  played = play()
  played.ray.at(12.0, lambda: setattr(played.stop, "number", signal.SIGTERM))
  with pytest.raises(Stopped):
    played.run([["a"], ["b"], ["c"]])
  assert played.ray.now < 15 and not played.events.failures


def test_questions_wait_for_a_worker_and_count_only_deaths_in_the_method(play: Play) -> None:
  played = play(Script(kills=dies_of("built-in mouse 7", "measure")))
  played.ray.at(5.2, lambda: played.ray.die(played.ray.actors[0]))
  assert played.cluster.describe() == {"platform": "fake", "workers": 2}
  assert played.cluster.auto_batch() == 4
  played.ray.sleep(1000.0)  # no outage: until the run begins, nobody looks for workers
  with pytest.raises(InputError, match="3 workers of the cluster died in `measure`"):
    played.cluster.measure(Source(name="m", recording="r", mouse=7))
  assert len(played.attempts("measure")) == MOST_DEATHS
  assert not played.run([["a"]]).lines


def test_workers_that_cannot_start_end_the_command_before_any_work(play: Play) -> None:
  played = play(Script(starts=lambda worker, process: False))
  with pytest.raises(ConfigError, match=r"no worker of the cluster answers \(the constructor"):
    played.cluster.describe()


def _watch_starts(played: Played, starts: Mapping[str, str]) -> list[str]:
  """Returns a list that gets each scene whose fit begins before that of its start has ended."""
  early: list[str] = []
  kills = played.ray.script.kills

  def look(attempt: Attempt) -> bool:
    ended = {*played.events.done, *played.events.failures}
    if attempt.method == "fit":
      early.extend(n for n in attempt.names if n in starts and starts[n] not in ended)
    return kills(attempt)

  played.ray.script.kills = look
  return early


def test_warm_starts_wait_for_their_fits_and_are_read_meanwhile(play: Play) -> None:
  played = play(workers=2, gpus=2)
  starts = {"c": "a", "d": "b", "e": "c", "f": "d"}
  early = _watch_starts(played, starts)
  events = played.run([["a"], ["b"], ["c"], ["d"], ["e"], ["f"]], starts=starts)
  assert not early and not events.failures
  # The worker that is up first takes both first batches. From there two are fitted at a time, and
  # none is waited for: it was read before.
  assert played.ray.now == pytest.approx(5 + 1 + 4 * 10, abs=0.5)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_scene_that_fails_keeps_nobody_waiting(play: Play, workers: int) -> None:
  played = play(Script(kills=dies_of("a")), workers=workers, gpus=workers)
  starts = {"c": "a", "d": "b", "e": "c", "f": "d"}
  early = _watch_starts(played, starts)
  events = played.run([["a", "b"], ["c", "d"], ["e", "f"]], starts=starts)
  assert not early
  assert list(events.failures) == ["a"] and sorted(events.done) == list("bcdef")


@pytest.mark.parametrize("seed", range(30))
def test_whatever_dies_each_scene_ends_once_and_only_its_own_deaths_fail_it(
  play: Play, seed: int
) -> None:
  rng = random.Random(seed)
  killers = {name for name in "abcdefghijkl" if rng.random() < 0.15}
  script = Script(
    kills=lambda a: a.method == "fit" and not killers.isdisjoint(a.names),
    restart_seconds=rng.choice([0.1, 5.0, 60.0]),
    start_seconds=rng.choice([0.1, 30.0]),
  )
  played = play(script, workers=rng.choice([1, 2, 3]), gpus=rng.choice([0, 1]))
  for _ in range(rng.choice([0, 10, 40])):  # accidents
    actor = rng.choice(played.ray.actors)
    played.ray.at(rng.uniform(0, 600), lambda actor=actor: played.ray.die(actor))  # type: ignore[misc]
  size, names = rng.choice([1, 2, 4]), "abcdefghijkl"
  groups = [list(names[i : i + size]) for i in range(0, len(names), size)]
  chained = rng.random() < 0.5
  starts = dict(zip(names[4:], names, strict=False)) if chained else {}
  early = _watch_starts(played, starts)
  events = played.run(groups, fitted=["x", "y", "z"], starts=starts)
  assert not early
  at_work = collections.Counter(
    attempt.names[0] for death in played.ray.deaths for attempt in death if len(attempt.names) == 1
  )
  assert killers <= set(events.failures)
  for name in events.failures:
    assert at_work[name] >= MOST_DEATHS


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Four scenes."""
  return write_mice(tmp_path_factory.mktemp("input") / "recording", 4)


@pytest.fixture(scope="module")
def local(four: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
  """Hashes of the files of a local run."""
  workdir = tmp_path_factory.mktemp("local")
  assert job.run(tiny_config(str(four)), workdir) == 0
  return results(workdir)


def run_on_ray(
  four: pathlib.Path, folder: pathlib.Path, worker: str
) -> subprocess.CompletedProcess[str]:
  """Runs the command with two workers of a class of `dying_workers`, in a process of its own."""
  (folder / "tiny.py").write_text(CONFIG_FILE)
  flags = [
    *(f"--config={folder / 'tiny.py'}", f"--config.data.input={four}"),
    *(f"--workdir={folder / 'w'}", "--config.execution.engine=ray"),
    "--config.execution.workers=2",
  ]
  code = f"from tests.run import dying_workers as d; d.run_command(d.{worker}, {flags!r})"
  env = {**os.environ, "PYTHONPATH": str(ROOT), "DYING_WORKERS": str(folder)}
  env["RAY_worker_niceness"] = "0"  # Ray's 15 would starve the workers beside other tests
  env.pop("RAY_ADDRESS", None)
  return subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
  )


def test_a_cluster_makes_the_same_bytes_though_a_worker_is_killed(
  four: pathlib.Path, local: dict[str, str], tmp_path: pathlib.Path
) -> None:
  ended = run_on_ray(four, tmp_path, "DiesOnce")
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert ended.stdout.count("A worker died with") == 1
  assert results(tmp_path / "w") == local
  records = scene_records.latest_records(tmp_path / "w" / "dataset")
  assert {r.status for r in records.values()} == {"done"} and len(records) == 4
  assert len((tmp_path / "w" / "dataset" / "train.txt").read_text().splitlines()) == 4


def test_a_scene_that_kills_every_worker_fails_alone(
  four: pathlib.Path, local: dict[str, str], tmp_path: pathlib.Path
) -> None:
  ended = run_on_ray(four, tmp_path, "DiesOfOneScene")
  assert ended.returncode == job.SOME_FAILED, ended.stdout + ended.stderr
  records = scene_records.latest_records(tmp_path / "w" / "dataset")
  statuses = {name: record.status for name, record in records.items()}
  assert statuses == {"mouse_0": "done", "mouse_1": "failed", "mouse_2": "done", "mouse_3": "done"}
  assert re.search(r"3 workers died .* this scene alone", records["mouse_1"].error)
  made = results(tmp_path / "w")
  whole_batch = {path for path in local if "mouse_2" in path or "mouse_3" in path}
  assert {path: made[path] for path in whole_batch} == {path: local[path] for path in whole_batch}


def test_without_ray_the_extra_is_named(
  four: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "ray", None)
  config = tiny_config(str(four))
  config.execution.engine = "ray"
  with pytest.raises(ConfigError, match=r"pip install 'jaxsplat-mouse\[cluster\]'"):
    job.run(config, tmp_path / "w")


def test_an_unknown_engine_is_told(four: pathlib.Path, tmp_path: pathlib.Path) -> None:
  config = tiny_config(str(four))
  config.execution.engine = "slurm"
  with pytest.raises(ConfigError, match=r"execution\.engine: 'slurm', expected 'local' or 'ray'"):
    job.run(config, tmp_path / "w")
