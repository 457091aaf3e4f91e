"""The parameters in which mice differ: proportions, pose and coat, drawn from a seed.

Lengths are in body units: the straight animal measures about 0.8 from nose to tail base. Angles are
in radians; positive yaw turns left, positive pitch lifts the nose.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class BodyShape:
  """Proportions of one animal; 1 is the average mouse.

  Attributes:
    fatness: thickness of the trunk.
    haunch: size of the hind quarters.
    head: size of the head, ears and eyes included.
    snout: length of the snout.
    ear: size of the ears.
    leg: thickness of legs and feet.
    foot: length of the feet.
    tail_length: length of the tail in body units.
    tail_radius: radius at the base of the tail in body units; the tip has 0.4 of it.
  """

  fatness: float = 1.0
  haunch: float = 1.0
  head: float = 1.0
  snout: float = 1.0
  ear: float = 1.0
  leg: float = 1.0
  foot: float = 1.0
  tail_length: float = 0.72
  tail_radius: float = 0.0125


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
  """Joint angles and the state of the gait.

  Attributes:
    height: of the pelvis above the floor, in body units.
    arch: pitch of the back from pelvis to chest, which rounds it.
    rear: pitch of the trunk about the pelvis; beyond about 0.5 the forelegs leave the floor.
    bend: yaw of the spine, spread over trunk and neck.
    head_yaw: turn of the head against the neck.
    head_pitch: nod of the head.
    head_roll: tilt of the head.
    gait_phase: position in the stride, in cycles; hind left, fore left, hind right and fore right
      follow each other by a quarter of a cycle.
    stride: length of a step in body units; 0 for standing still.
    lift: height of a swinging foot in body units.
    tail_yaw: direction of the tail at its base, 0 is straight back.
    tail_curl: turn of the tail from base to tip.
    tail_wave: amplitude of the S-shaped bend of the tail.
    tail_phase: phase of that bend in cycles.
    tail_rise: height of the tip above the floor in body units.
  """

  height: float = 0.2
  arch: float = 0.38
  rear: float = 0.0
  bend: float = 0.0
  head_yaw: float = 0.0
  head_pitch: float = 0.0
  head_roll: float = 0.0
  gait_phase: float = 0.0
  stride: float = 0.0
  lift: float = 0.0
  tail_yaw: float = 0.0
  tail_curl: float = 0.0
  tail_wave: float = 0.0
  tail_phase: float = 0.0
  tail_rise: float = 0.02


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Coat:
  """Colours and pattern of the fur, as arrays: a new coat needs no recompilation.

  Attributes:
    back, belly, patch: (3,) fur colours in [0, 1].
    skin: (3,) colour of nose, feet, tail and the inside of the ears.
    eye: (3,) colour of the eyes.
    belly_line: () height, in body units, where back turns into belly.
    patch_cover: () share of the body under patches, 0 for none.
    patch_frequency: () patches per body unit.
    stripe: () strength of the dark line along the back.
    streaks: () contrast of the fine hair streaks.
    mottle: () contrast of the larger blotches.
    noise_seed: () uint32.
  """

  back: np.ndarray
  belly: np.ndarray
  patch: np.ndarray
  skin: np.ndarray
  eye: np.ndarray
  belly_line: np.ndarray
  patch_cover: np.ndarray
  patch_frequency: np.ndarray
  stripe: np.ndarray
  streaks: np.ndarray
  mottle: np.ndarray
  noise_seed: np.ndarray


# Colours of back, belly and patches, cover of the patches, strength of the dark stripe.
_COATS = {
  "agouti": ((0.46, 0.34, 0.22), (0.78, 0.69, 0.56), (0.36, 0.25, 0.15), 0.15, 0.45),
  "black": ((0.16, 0.14, 0.14), (0.33, 0.29, 0.27), (0.24, 0.21, 0.20), 0.2, 0.2),
  "white": ((0.79, 0.77, 0.73), (0.83, 0.81, 0.78), (0.70, 0.65, 0.58), 0.2, 0.0),
  "grey": ((0.44, 0.45, 0.49), (0.75, 0.74, 0.73), (0.34, 0.34, 0.38), 0.15, 0.3),
  "fawn": ((0.74, 0.52, 0.30), (0.92, 0.84, 0.70), (0.62, 0.40, 0.21), 0.15, 0.3),
  "pied": ((0.77, 0.73, 0.67), (0.81, 0.78, 0.74), (0.27, 0.20, 0.16), 0.45, 0.0),
}
_POSES = {
  "stand": Pose(),
  "walk": Pose(stride=0.16, lift=0.035, height=0.205, arch=0.32),
  "crouch": Pose(height=0.18, arch=0.6, head_pitch=-0.15),
  "stretch": Pose(arch=0.15, head_pitch=0.12),
  "rear": Pose(rear=0.8, arch=-0.05, height=0.178, head_pitch=-0.35),
}
COATS = tuple(_COATS)
POSES = tuple(_POSES)


def sample_shape(rng: np.random.Generator) -> BodyShape:
  """Draws proportions within the range of real mice."""
  return BodyShape(
    fatness=rng.uniform(0.94, 1.16),
    haunch=rng.uniform(0.92, 1.1),
    head=rng.uniform(0.93, 1.08),
    snout=rng.uniform(0.9, 1.12),
    ear=rng.uniform(0.85, 1.15),
    leg=rng.uniform(0.9, 1.12),
    foot=rng.uniform(0.92, 1.1),
    tail_length=rng.uniform(0.64, 0.8),
    tail_radius=rng.uniform(0.0112, 0.0138),
  )


def sample_pose(rng: np.random.Generator, kind: str) -> Pose:
  """Draws angles around one of the named poses."""
  base = _POSES[kind]
  side = float(rng.choice([-1.0, 1.0]))
  vary = lambda value, spread: value + rng.uniform(-spread, spread)
  return dataclasses.replace(
    base,
    height=vary(base.height, 0.008),
    arch=vary(base.arch, 0.06),
    rear=base.rear and vary(base.rear, 0.12),
    bend=side * rng.uniform(0.1, 0.5),
    head_yaw=side * rng.uniform(-0.2, 0.4),
    head_pitch=vary(base.head_pitch, 0.12),
    head_roll=vary(0.0, 0.12),
    gait_phase=rng.uniform(),
    stride=base.stride or rng.uniform(0.0, 0.05),
    tail_yaw=vary(0.0, 0.35),
    tail_curl=float(rng.choice([-1.0, 1.0])) * rng.uniform(0.8, 2.8),
    tail_wave=rng.uniform(0.0, 0.5),
    tail_phase=rng.uniform(),
    tail_rise=rng.uniform(0.005, 0.12),
  )


def sample_coat(rng: np.random.Generator, kind: str) -> Coat:
  """Draws colours and pattern around one of the named coats."""
  back, belly, patch, cover, stripe = _COATS[kind]
  tint = rng.uniform(0.92, 1.06) * (1.0 + rng.uniform(-0.02, 0.02, 3))
  colour = lambda c: np.clip(np.asarray(c) * tint, 0.02, 0.97).astype(np.float32)
  number = lambda x: np.asarray(x, np.float32)
  pink = np.array([0.84, 0.62, 0.56]) * (0.55 if kind == "black" else rng.uniform(0.85, 1.0))
  albino = kind == "white" and rng.uniform() < 0.5
  return Coat(
    back=colour(back),
    belly=colour(belly),
    patch=colour(patch),
    skin=pink.astype(np.float32),
    eye=np.array([0.45, 0.06, 0.08] if albino else [0.035, 0.028, 0.03], np.float32),
    belly_line=number(rng.uniform(0.12, 0.16)),
    patch_cover=number(cover * rng.uniform(0.7, 1.3)),
    patch_frequency=number(rng.uniform(3.0, 5.5)),
    stripe=number(stripe * rng.uniform(0.5, 1.3)),
    streaks=number(rng.uniform(0.4, 0.6) * (0.75 if kind in ("white", "pied") else 1.0)),
    mottle=number(rng.uniform(0.12, 0.25)),
    noise_seed=np.asarray(rng.integers(1, 2**31), np.uint32),
  )
