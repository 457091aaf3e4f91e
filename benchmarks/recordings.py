"""Recordings with faults: what a calibration or masks that are a little wrong cost, and what
`capture.pose_refinement` wins back.

    python -m benchmarks.recordings                                   every fault, three mice
    python -m benchmarks.recordings --subjects=grey --faults=none,pose_0.15      another rig
    python -m benchmarks.recordings --config=3dgs --moments=16 --scored=1

Built-in mice walk through the arena of a real rig. The pictures are exact; a fault changes what is
handed over with them: the calibration, the masks, the exposure, the frame that a camera delivers.
Every recording is fitted as given and with refined poses. fg PSNR (dB) and IoU of views that no
camera took, after the motion and growth that all cameras share is removed, which is no error; and
the cameras' error near the animal, pixels. Where $OUT is set, recordings.json goes there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import mice, quality
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.capture import pose_refinement
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines, trace_outline
from jaxsplat_mouse.procedural_mouse.disturb import exposure_gains, rotation_about
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import rig_cameras
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.scene import Similarity

MM = 99.0 / 0.82  # millimetres per world unit: `real_rig`'s mouse
LATE_CAMERA = 3  # the camera that has a second set of pictures, taken one frame earlier
_FRAME = 1.0 / 30.0  # seconds
_SPACING = 0.7  # seconds between two moments
_REACH = 0.15  # world units that the animal walks to either side
_SPEEDS = 5.0, 3.7  # radians per second along x and y
_STRIDES = 3.0  # per second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """An animal and the rig that films it.

  Attributes:
    seed: of the animal.
    coat: its name; see `procedural_mouse`.
    rig: `dannce` for the real rig, or the seed of a drawn one.
  """

  seed: int
  coat: str
  rig: str = "dannce"


SUBJECTS = {
  "agouti": Subject(seed=301, coat="agouti"),
  "pied": Subject(seed=302, coat="pied"),
  "black": Subject(seed=303, coat="black"),
  "grey": Subject(seed=304, coat="grey", rig="7"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
  """Exact pictures of one animal.

  Attributes:
    cameras: (V,) true cameras.
    rgba: (M, V, H, W, 4) uint8, straight.
    late: (M, H, W, 4) uint8 of `LATE_CAMERA`, one frame earlier.
    truth: (T, N, S, S, 4) uint8 of the first T moments at `novel`.
    novel: (N,) cameras that took no photograph.
  """

  cameras: Cameras
  rgba: np.ndarray
  late: np.ndarray
  truth: np.ndarray
  novel: Cameras


def mouse_at(subject: Subject, time: float) -> Mouse:
  """Returns the animal at a time of its walk, seconds."""
  mouse = walking(make_mouse(subject.seed, "walk", subject.coat), _STRIDES * time)
  rng = np.random.default_rng(subject.seed)
  phase = rng.uniform(0, 2 * math.pi, 2) + np.array(_SPEEDS) * time
  turn = math.atan2(_SPEEDS[1] * math.cos(phase[1]), _SPEEDS[0] * math.cos(phase[0])) - mouse.yaw
  x, y, z = mouse.translation
  c, s = math.cos(turn), math.sin(turn)
  place = _REACH * np.sin(phase) + np.array([c * x - s * y, s * x + c * y])
  return dataclasses.replace(
    mouse, yaw=mouse.yaw + turn, translation=(float(place[0]), float(place[1]), z)
  )


def rig_of(subject: Subject, width: int) -> Cameras:
  """Returns the true cameras (6,) of a subject, with images `width` pixels wide."""
  if subject.rig == "dannce":
    return dannce_cameras(width)
  return rig_cameras(int(subject.rig), width, width * 8 // 9)


def novel_cameras(width: int, views: int) -> Cameras:
  """Returns views of FaceLift's orbit."""
  return generate_camera_poses(views, image_size=width)


def _levels(rgba: np.ndarray) -> np.ndarray:
  return np.round(255 * rgba).astype(np.uint8)


def _shoot(job: tuple[Subject, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pictures of one moment: of the rig, of the late camera, and truth (views, S, S, 4)."""
  subject, moment, width, views = job
  rig = rig_of(subject, width)
  mouse = mouse_at(subject, _SPACING * moment)
  own = _levels(render_truth(mouse, rig).rgba)
  one = dataclasses.replace(
    rig,
    world_to_camera=rig.world_to_camera[LATE_CAMERA : LATE_CAMERA + 1],
    intrinsics=rig.intrinsics[LATE_CAMERA : LATE_CAMERA + 1],
  )
  earlier = mouse_at(subject, _SPACING * moment - _FRAME)
  late = _levels(render_truth(earlier, one).rgba[0])
  truth = np.zeros((0, width, width, 4), np.uint8)
  if views:
    truth = _levels(render_truth(mouse, novel_cameras(width, views)).rgba)
  return own, late, truth


def make_films(
  names: list[str], moments: int, scored: int, width: int, views: int, cache: pathlib.Path
) -> dict[str, Film]:
  """Renders, or reads from the cache, the films of some subjects.

  Args:
    names: of `SUBJECTS`.
    moments: M, of each film.
    scored: T, the moments that have novel views.
    width: of all images, pixels; a multiple of 9.
    views: novel views.
    cache: the folder that keeps what was rendered.
  """
  path = lambda name: cache / f"{name}_{moments}_{scored}_{width}_{views}.npz"
  missing = [name for name in names if not path(name).is_file()]
  jobs = [
    (SUBJECTS[n], m, width, views if m < scored else 0) for n in missing for m in range(moments)
  ]
  if jobs:
    cache.mkdir(parents=True, exist_ok=True)
    # Tracing is NumPy's: processes, which must not inherit this one's device.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
      shots = list(pool.map(_shoot, jobs))
    for i, name in enumerate(missing):
      own, late, truth = zip(*shots[i * moments : (i + 1) * moments], strict=True)
      arrays = {"rgba": np.stack(own), "late": np.stack(late), "truth": np.stack(truth[:scored])}
      np.savez_compressed(path(name), **arrays)
  films = {}
  for name in names:
    held = np.load(path(name))
    films[name] = Film(
      cameras=rig_of(SUBJECTS[name], width),
      rgba=held["rgba"],
      late=held["late"],
      truth=held["truth"],
      novel=novel_cameras(width, views),
    )
  return films


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
  """What is wrong with what a recording says about its pictures.

  Attributes:
    turn: standard deviation of each camera's turn about each of its axes, degrees.
    shift: of its centre along each axis, millimetres.
    focal: of its focal length, relative.
    grow: pixels by which masks are too wide; negative for too narrow.
    wobble: pixels by which their outlines wobble, smoothly, anew in every picture.
    hard: masks have no soft edge.
    late: `LATE_CAMERA` delivers the frame before.
    exposure: spread of the cameras' gains.
  """

  turn: float = 0.0
  shift: float = 0.0
  focal: float = 0.0
  grow: float = 0.0
  wobble: float = 0.0
  hard: bool = False
  late: bool = False
  exposure: float = 0.0

  @property
  def spoils_masks(self) -> bool:
    """Whether the masks are other than exact."""
    return bool(self.grow or self.wobble or self.hard)


FAULTS = {
  "none": Fault(),
  "pose_0.15": Fault(turn=0.15, shift=0.5),
  "pose_0.5": Fault(turn=0.5, shift=1.0),
  "pose_1": Fault(turn=1.0, shift=5.0),
  "pose_2": Fault(turn=2.0),
  "focal": Fault(focal=0.003),
  "calibration": Fault(turn=0.15, shift=0.5, focal=0.002),
  "wide": Fault(grow=2),
  "narrow": Fault(grow=-1),
  "wobble": Fault(grow=1, wobble=1, hard=True),
  "late": Fault(late=True),
  "exposure": Fault(exposure=0.15),
  "all": Fault(turn=0.5, grow=1, wobble=1, hard=True, exposure=0.15),
}


def spoil_cameras(cameras: Cameras, fault: Fault, seed: int) -> Cameras:
  """Returns the cameras (V,) as a wrong calibration describes them."""
  rng = np.random.default_rng([seed, 1])
  poses = np.array(cameras.world_to_camera, np.float64)
  intrinsics = np.array(cameras.intrinsics, np.float64)
  for i, pose in enumerate(poses):
    center = -pose[:3, :3].T @ pose[:3, 3] + fault.shift / MM * rng.normal(size=3)
    pose[:3, :3] = rotation_about(math.radians(fault.turn) * rng.normal(size=3)) @ pose[:3, :3]
    pose[:3, 3] = -pose[:3, :3] @ center
    intrinsics[i, :2] *= 1.0 + fault.focal * rng.normal()
  return dataclasses.replace(cameras, world_to_camera=poses, intrinsics=intrinsics)


def spoil_mask(alpha: np.ndarray, fault: Fault, rng: np.random.Generator) -> np.ndarray:
  """Returns a mask (H, W) uint8 as a bad segmentation gives it."""
  import cv2

  inside = (alpha > 127).astype(np.uint8)
  far, deep = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (1 - inside, inside))
  offset = np.float32(fault.grow)
  if fault.wobble:
    noise = cv2.GaussianBlur(rng.normal(size=alpha.shape).astype(np.float32), (0, 0), 12)
    offset = offset + fault.wobble * noise / noise.std()
  soft = np.clip(0.5 + offset - (far - deep), 0, 1)
  return ((soft > 0.5) * 255 if fault.hard else np.round(soft * 255)).astype(np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
  """What a lab would hand over: pictures and cameras with faults.

  Attributes:
    cameras: (V,) as calibrated.
    rgba: (M, V, H, W, 4) uint8.
  """

  cameras: Cameras
  rgba: np.ndarray


def spoil(film: Film, fault: Fault, seed: int, background: float = 0.5) -> Recording:
  """Returns the recording of a film with a fault; pixels that a mask adds show the background."""
  rgba = film.rgba.copy()
  if fault.late:
    rgba[:, LATE_CAMERA] = film.late
  if fault.exposure:
    gains = exposure_gains(rgba.shape[1], seed, fault.exposure)[:, None, None]
    rgba[..., :3] = np.clip(np.round(rgba[..., :3] * gains), 0, 255).astype(np.uint8)
  if fault.spoils_masks:
    rng = np.random.default_rng([seed, 2])
    for picture in rgba.reshape(-1, *rgba.shape[2:]):
      mask = spoil_mask(picture[..., 3], fault, rng)
      cover = picture[..., 3:] / 255.0
      photo = picture[..., :3] * cover + 255 * background * (1 - cover)
      picture[..., :3] = np.where(mask[..., None] > 0, np.round(photo), 0)
      picture[..., 3] = mask
  return Recording(cameras=spoil_cameras(film.cameras, fault, seed), rgba=rgba)


def outlines_of(recording: Recording, side: int = 256) -> Outlines:
  """Returns the outlines of all silhouettes of a recording, `side` pixels for the largest."""
  alphas = recording.rgba[..., 3]
  rows, columns = (alphas >= 128).any(3), (alphas >= 128).any(2)
  span = lambda line: line.shape[-1] - line.argmax(-1) - line[..., ::-1].argmax(-1)
  longest = max(np.where(line.any(-1), span(line), 0).max() for line in (rows, columns))
  frame = np.array([0, 0, recording.cameras.width, recording.cameras.height], np.float64)
  trace = functools.partial(
    trace_outline, frame=frame, side=side, scale=min(1.0, side / (1.25 * longest))
  )
  intrinsics = np.asarray(recording.cameras.intrinsics, np.float64)
  return stack_outlines([[trace(a, k) for a, k in zip(m, intrinsics, strict=True)] for m in alphas])


def refine(recording: Recording) -> tuple[Cameras, bool]:
  """Returns the cameras with refined poses, and whether held-out moments confirmed them."""
  found = pose_refinement.refine_poses(recording.cameras.world_to_camera, outlines_of(recording))
  return dataclasses.replace(
    recording.cameras, world_to_camera=found.world_to_camera
  ), found.accepted


def common_similarity(given: Cameras, true: Cameras) -> tuple[Similarity, float]:
  """What all given cameras share: the map true world -> given world, and what remains, pixels.

  The remainder is the root mean square distance between where the given and the true cameras see
  points of a box around the animal.
  """
  from scipy.optimize import least_squares
  from scipy.spatial.transform import Rotation

  line = np.linspace(-0.6, 0.6, 4)
  points = np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)

  def pixels(cameras: Cameras, x: np.ndarray) -> np.ndarray:
    poses, k = (np.asarray(a, np.float64) for a in (cameras.world_to_camera, cameras.intrinsics))
    seen = np.einsum("vij,nj->vni", poses[:, :3, :3], x) + poses[:, None, :3, 3]
    return k[:, None, :2] * seen[..., :2] / seen[..., 2:] + k[:, None, 2:]

  wanted = pixels(true, points)

  def similarity(v: np.ndarray) -> Similarity:
    rotation = Rotation.from_rotvec(v[:3]).as_matrix()
    return Similarity(scale=float(np.exp(v[6])), rotation=rotation, translation=v[3:6])

  off = lambda v: (pixels(given, similarity(v).points(points)) - wanted).reshape(-1)
  best = least_squares(off, np.zeros(7))
  return similarity(best.x), float(np.sqrt(2 * np.square(best.fun).mean()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Treatment:
  """A recording's cameras, as given or refined, and how wrong they are.

  Attributes:
    subject, fault, name: of the animal, the fault, and `given` or `refined`.
    cameras: (V,).
    accepted: whether the refinement was; True for given cameras.
    pixels: error of the cameras near the animal.
  """

  subject: str
  fault: str
  name: str
  cameras: Cameras
  accepted: bool
  pixels: float


def _treat(job: tuple[str, str, Film, int, bool]) -> list[Treatment]:
  """Treatments of one film with one fault."""
  subject, fault, film, seed, only_given = job
  recording = spoil(film, FAULTS[fault], seed)
  found = [("given", recording.cameras, True)]
  if not only_given:
    found.append(("refined", *refine(recording)))
  return [
    Treatment(
      subject=subject,
      fault=fault,
      name=name,
      cameras=cameras,
      accepted=accepted,
      pixels=common_similarity(cameras, film.cameras)[1],
    )
    for name, cameras, accepted in found
  ]


def make_trials(film: Film, fault: Fault, treatment: Treatment, seed: int) -> list[quality.Trial]:
  """Returns the scored moments as trials; none where the silhouettes have no common solid."""
  recording = spoil(film, fault, seed)
  cameras = treatment.cameras
  cameras = dataclasses.replace(
    cameras,
    world_to_camera=np.asarray(cameras.world_to_camera, np.float32),
    intrinsics=np.asarray(cameras.intrinsics, np.float32),
  )
  shared, _ = common_similarity(treatment.cameras, film.cameras)
  moved = shared.world_to_camera(film.novel.world_to_camera)
  novel = dataclasses.replace(film.novel, world_to_camera=moved)
  found = []
  for moment, truth in enumerate(film.truth):
    name = f"{treatment.subject}@{moment} {treatment.fault} {treatment.name}"
    groups = [(np.arange(len(truth)), novel)]
    levels = list(mice.to_unit_floats(truth))
    scene = mice.to_scene(recording.rgba[moment], cameras)
    try:
      found.append(quality.canonical_trial(name, scene, groups, levels))
    except ValueError as error:
      print(f"{name}: {error}", flush=True)
  return found


def fit_rows(
  work: Sequence[tuple[Treatment, quality.Trial]], recipe: quality.Recipe, seed: int
) -> list[dict[str, Any]]:
  """Fits all trials as one batch; a row of scores for each."""
  fits, seconds = quality.fit_trials([t for _, t in work], [seed] * len(work), recipe)
  rows = []
  for (treatment, trial), fit in zip(work, fits, strict=True):
    described = {
      "subject": treatment.subject,
      "fault": treatment.fault,
      "cameras": treatment.name,
      "accepted": treatment.accepted,
      "pixels": treatment.pixels,
      "trial": trial.name,
      "seed": seed,
      "seconds": seconds / len(work),
    }
    rows.append({**described, **quality.score(trial, fit, recipe)})
  return rows


def make_table(rows: Sequence[dict[str, Any]]) -> str:
  """Scores by fault, as given and refined, and the loss against the recording without faults."""
  names = [*dict.fromkeys(row["cameras"] for row in rows)]
  heads = [f"{name}: px · fg PSNR / IoU · lost" for name in names]
  lines = ["| fault | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(names)]
  mean = lambda kept, key: float(np.mean([row[key] for row in kept])) if kept else math.nan
  clean = [r for r in rows if (r["fault"], r["cameras"]) == ("none", "given")]
  for fault in dict.fromkeys(row["fault"] for row in rows):
    cells = []
    for name in names:
      kept = [r for r in rows if (r["fault"], r["cameras"]) == (fault, name)]
      # The same moments without faults: a trial that has no hull counts on neither side.
      same = {(r["subject"], r["trial"].split()[0], r["seed"]) for r in kept}
      base = [r for r in clean if (r["subject"], r["trial"].split()[0], r["seed"]) in same]
      lost = mean(base, "fg_psnr") - mean(kept, "fg_psnr")
      cells.append(
        f"{mean(kept, 'pixels'):.2f} · {mean(kept, 'fg_psnr'):.2f} / {mean(kept, 'iou'):.4f}"
        f" · {lost:+.2f} ({len(kept)})"
      )
    lines.append(f"| {fault} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def _treat_all(jobs: Iterable[tuple[str, str, Film, int, bool]]) -> list[Treatment]:
  """Refines in processes of their own, on the CPU, as `prepare` would."""
  held = os.environ.get("JAX_PLATFORMS")
  os.environ["JAX_PLATFORMS"] = "cpu"
  try:
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) // 2), get_context("spawn")) as pool:
      return [one for found in pool.map(_treat, jobs) for one in found]
  finally:
    os.environ.pop("JAX_PLATFORMS")
    if held is not None:
      os.environ["JAX_PLATFORMS"] = held


def _main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  films = make_films(
    given.subjects, given.film, 2, given.width, given.views, pathlib.Path(given.cache)
  )
  films = {
    name: dataclasses.replace(
      film,
      rgba=film.rgba[: given.moments],
      late=film.late[: given.moments],
      truth=film.truth[: given.scored],
    )
    for name, film in films.items()
  }
  only = given.only_given
  jobs = [
    (name, fault, films[name], given.fault_seed, fault in only)
    for name in given.subjects
    for fault in given.faults
  ]
  treatments = _treat_all(jobs)
  for t in treatments:
    print(f"{t.subject} {t.fault} {t.name}: accepted={t.accepted} {t.pixels:.3f} px", flush=True)
  _, _, shrink = quality.SIZES[given.size]
  recipe = quality.make_recipe(given.config, given.config, shrink)
  # Cameras that stay as given are fitted once.
  distinct = [t for t in treatments if t.name == "given" or t.accepted]
  work = [
    (t, trial)
    for t in distinct
    for trial in make_trials(films[t.subject], FAULTS[t.fault], t, given.fault_seed)
  ]
  rows: list[dict[str, Any]] = []
  for seed in given.seeds:
    for start in range(0, len(work), given.batch):
      rows += fit_rows(work[start : start + given.batch], recipe, int(seed))
  kept = [t for t in treatments if t.name == "refined" and not t.accepted]
  for t in kept:
    same = [r for r in rows if (r["subject"], r["fault"]) == (t.subject, t.fault)]
    rows += [{**r, "cameras": "refined"} for r in same if r["cameras"] == "given"]
  print(make_table(rows))
  if os.environ.get("OUT"):
    pathlib.Path(os.environ["OUT"], "recordings.json").write_text(json.dumps(rows, indent=1))


def _define_flags() -> None:
  flags.DEFINE_list("subjects", ["agouti", "pied", "black"], "Names of SUBJECTS.")
  flags.DEFINE_list("faults", list(FAULTS), "Names of FAULTS.")
  flags.DEFINE_list("only_given", [], "Faults whose poses are not refined.")
  flags.DEFINE_list("seeds", ["0"], "Seeds of the fits.")
  flags.DEFINE_integer("fault_seed", 0, "Seed of the faults.")
  flags.DEFINE_integer("film", 32, "Moments that are rendered.", 2)
  flags.DEFINE_integer("moments", 32, "Moments that are refined on.", 2)
  flags.DEFINE_integer("scored", 2, "Moments that are fitted and scored, at most 2.", 1, 2)
  flags.DEFINE_integer("width", 504, "Of all images, pixels; a multiple of 9.", 9)
  flags.DEFINE_integer("views", 8, "Novel views of a scored moment.", 1)
  flags.DEFINE_string("config", "2dgs", "A recipe of configs/.")
  flags.DEFINE_enum("size", "full", list(quality.SIZES), "How large the fits are.")
  flags.DEFINE_integer("batch", 16, "Scenes fitted together.", 1)
  flags.DEFINE_string("cache", "/tmp/jaxsplat_recordings", "A folder that keeps the films.")


if __name__ == "__main__":
  _define_flags()
  app.run(_main)
