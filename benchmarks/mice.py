"""The benchmark set of `benchmarks.quality`: sixteen built-in mice.

They differ in pose, coat, fur and rig, and in faults of their photographs, masks and cameras.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.procedural_mouse.disturb import (
  apply_exposure,
  exposure_gains,
  grow_masks,
  punch_holes,
  shake_cameras,
)
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, rig_cameras
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.scene import Scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One animal, its rig, and the faults of its photographs.

  Attributes:
    seed: of the animal.
    pose, coat: names; see `procedural_mouse.parameters`.
    fur: length of soft hair, world units.
    rig: `ring` (ideal), `uneven` (drawn) or `dannce` (a real calibration).
    exposure: standard deviation of the views' gains.
    grow: pixels by which masks are too wide.
    holes: number of discs cut out of every mask.
    shake: degrees by which every camera is turned.
  """

  seed: int
  pose: str
  coat: str
  fur: float = 0.0
  rig: str = "ring"
  exposure: float = 0.0
  grow: int = 0
  holes: int = 0
  shake: float = 0.0


CASES: dict[str, Case] = {
  "stand_agouti": Case(seed=101, pose="stand", coat="agouti"),
  "walk_black": Case(seed=102, pose="walk", coat="black"),
  "crouch_white": Case(seed=103, pose="crouch", coat="white"),
  "stretch_pied": Case(seed=104, pose="stretch", coat="pied"),
  "rear_grey": Case(seed=105, pose="rear", coat="grey"),
  "walk_fawn_fur": Case(seed=106, pose="walk", coat="fawn", fur=0.02),
  "stand_white_fur": Case(seed=107, pose="stand", coat="white", fur=0.03),
  "walk_agouti_uneven": Case(seed=108, pose="walk", coat="agouti", rig="uneven"),
  "stand_black_dannce": Case(seed=109, pose="stand", coat="black", rig="dannce"),
  "stand_black": Case(seed=109, pose="stand", coat="black"),  # as above, on the ring
  "walk_pied_dannce": Case(seed=110, pose="walk", coat="pied", rig="dannce", fur=0.015),
  "walk_pied": Case(seed=110, pose="walk", coat="pied", fur=0.015),
  "stand_fawn_exposure": Case(seed=111, pose="stand", coat="fawn", exposure=0.15),
  "walk_grey_holes": Case(seed=112, pose="walk", coat="grey", holes=2),
  "stand_agouti_wide": Case(seed=113, pose="stand", coat="agouti", grow=2),
  "crouch_fawn_shaken": Case(seed=114, pose="crouch", coat="fawn", shake=0.15),
}


def rig_of(case: Case, size: int) -> Cameras:
  """Returns the cameras of a case, with images about `size` pixels wide."""
  if case.rig == "dannce":
    return dannce_cameras(size // 9 * 9)
  if case.rig == "uneven":
    return rig_cameras(case.seed, size, size * 8 // 9)
  return input_cameras(image_size=size)


def novel_cameras(size: int, views: int) -> Cameras:
  """Returns cameras of FaceLift's orbit, at which the truth is rendered."""
  return generate_camera_poses(views, image_size=size)


def make_case(
  name: str, size: int, views: int, cache: pathlib.Path | None = None
) -> tuple[Scene, np.ndarray]:
  """Renders the photographs of a case and the truth at `novel_cameras`.

  Args:
    name: of `CASES`.
    size: width of all images, pixels.
    views: number of novel views.
    cache: a folder that stores the renders.

  Returns:
    the photographs with the faults of the case, and straight RGBA (views, S, S, 4) in [0, 1].
  """
  case, rig = CASES[name], rig_of(CASES[name], size)
  mouse = make_mouse(case.seed, case.pose, case.coat)
  path = cache / f"{name}_{size}_{views}.npz" if cache else None
  own, truth = render_cached(mouse, (rig, novel_cameras(size, views)), case.fur, path)
  return _disturb(to_scene(own, rig), case), to_unit_floats(truth)


def render_cached(
  mouse: Mouse, rigs: tuple[Cameras, Cameras], fur: float, path: pathlib.Path | None
) -> tuple[np.ndarray, np.ndarray]:
  """Renders an animal at two rigs, or reads the renders from a file.

  Args:
    mouse: the animal.
    rigs: cameras of the photographs (V,) and of the truth (K,).
    fur: length of soft hair, world units.
    path: the `.npz` file that stores the renders; None for no file.

  Returns:
    straight RGBA (V, H, W, 4) and (K, S, S, 4), uint8.
  """
  if path and path.is_file():
    stored = np.load(path)
    return stored["own"], stored["truth"]
  own, truth = (
    np.round(255 * render_truth(mouse, rig, fur=fur).rgba).astype(np.uint8) for rig in rigs
  )
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, own=own, truth=truth)
  return own, truth


def to_unit_floats(levels: np.ndarray) -> np.ndarray:
  """Converts uint8 levels to float32 in [0, 1]."""
  return levels.astype(np.float32) / np.float32(255)


def to_scene(levels: np.ndarray, rig: Cameras) -> Scene:
  """Returns the scene of straight RGBA photographs (V, H, W, 4) uint8 of a rig (V,)."""
  rgba = to_unit_floats(levels)
  frame = np.array([0, 0, rig.width, rig.height], np.float32)
  alphas = np.ascontiguousarray(rgba[..., 3])
  return Scene(
    cameras=rig,
    images=np.where(alphas[..., None] > 0, rgba[..., :3], 0.0).astype(np.float32),
    alphas=alphas,
    frames=np.tile(frame, (len(rgba), 1)),
    view_mask=np.ones(len(rgba), bool),
  )


def _disturb(scene: Scene, case: Case) -> Scene:
  if case.exposure:
    gains = exposure_gains(len(scene.alphas), case.seed, case.exposure)
    scene = apply_exposure(scene, gains)
  if case.grow:
    scene = grow_masks(scene, case.grow)
  if case.holes:
    scene = punch_holes(scene, case.seed, case.holes)
  if case.shake:
    scene = shake_cameras(scene, case.seed, case.shake)
  return scene
