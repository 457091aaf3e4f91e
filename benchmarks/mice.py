"""The benchmark set: built-in mice that differ in all that reconstruction can stumble over."""

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
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, rig_cameras
from jaxsplat_mouse.scene import Scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One animal, its rig, and what is wrong with its photographs.

  Attributes:
    seed: of the animal.
    pose, coat: names; see `procedural_mouse`.
    fur: length of soft hair, world units.
    rig: `ring` (ideal), `uneven` (drawn) or `dannce` (a real calibration).
    exposure: spread of the gains of the views.
    grow: pixels by which masks are too wide.
    holes: discs cut out of every mask.
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
  """The cameras of a case, with images about `size` pixels wide."""
  if case.rig == "dannce":
    return dannce_cameras(size // 9 * 9)
  if case.rig == "uneven":
    return rig_cameras(case.seed, size, size * 8 // 9)
  return input_cameras(image_size=size)


def novel_cameras(size: int, views: int) -> Cameras:
  """Views of FaceLift's orbit that truth is rendered for."""
  return generate_camera_poses(views, image_size=size)


def make_case(
  name: str, size: int, views: int, cache: pathlib.Path | None = None
) -> tuple[Scene, np.ndarray]:
  """The photographs of a case, and truth (views, S, S, 4) at `novel_cameras`.

  Args:
    name: of `CASES`.
    size: width of all images, pixels.
    views: novel views.
    cache: a folder that keeps what was rendered.
  """
  case, rig = CASES[name], rig_of(CASES[name], size)
  path = cache / f"{name}_{size}_{views}.npz" if cache else None
  if path and path.is_file():
    held = np.load(path)
    rgba = {key: held[key].astype(np.float32) / np.float32(255) for key in ("own", "truth")}
  else:
    mouse = make_mouse(case.seed, case.pose, case.coat)
    see = lambda cameras: render_truth(mouse, cameras, fur=case.fur).rgba
    exact = {"own": see(rig), "truth": see(novel_cameras(size, views))}
    levels = {key: np.round(255 * value).astype(np.uint8) for key, value in exact.items()}
    if path:
      path.parent.mkdir(parents=True, exist_ok=True)
      np.savez_compressed(path, **levels)
    rgba = {key: value.astype(np.float32) / np.float32(255) for key, value in levels.items()}
  return _disturb(to_scene(rgba["own"], rig), case), rgba["truth"]


def to_scene(rgba: np.ndarray, rig: Cameras) -> Scene:
  """Straight RGBA photographs (V, H, W, 4) in [0, 1] of a rig (V,)."""
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
