"""Builds the primitives of the distance field from proportions and a pose (NumPy, on the host).

Body frame: x forward, y left, z up, the floor at z = 0. Every primitive has the rigid frame of its
bone; the same bone in the rest pose defines the transform that keeps the coat on the skin.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxsplat_mouse.procedural_mouse.parameters import BodyShape, Pose

TAIL_SEGMENTS = 22
FUR, SKIN, EYE, EAR = range(4)  # materials

# Phases of hind left, fore left, hind right and fore right in the lateral-sequence walk.
_GAIT = {("hind", 1): 0.0, ("fore", 1): 0.25, ("hind", -1): 0.5, ("fore", -1): 0.75}
_PAD = 0.004  # by which the smooth union of foot and toes is thicker than its parts
_DUTY = 0.66  # share of the stride that a foot spends on the floor


@dataclasses.dataclass(frozen=True)
class BoneFrame:
  """A rigid frame: the columns of `axes` are its x, y and z in the body frame."""

  origin: np.ndarray
  axes: np.ndarray

  def at(self, *local: float) -> np.ndarray:
    """Returns a point of this frame in the body frame."""
    return self.origin + self.axes @ np.asarray(local, np.float64)

  def moved(self, *local: float) -> BoneFrame:
    """Returns a frame with the same axes at another point of this frame."""
    return BoneFrame(self.at(*local), self.axes)

  def turned(self, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> BoneFrame:
    """Rotates the frame about its own axes.

    Args:
      yaw: about z, first, radians.
      pitch: about y, second; positive lifts x.
      roll: about x, last.
    """
    return BoneFrame(self.origin, self.axes @ _turn(yaw, pitch, roll))


@dataclasses.dataclass
class Parts:
  """Primitives in the order of their union, as lists that grow while the animal is built.

  Attributes:
    masses: ellipsoids (frame at the centre, radii, blend, material) of trunk and head.
    cones: (end a, end b, radius at a, radius at b, blend, frame, material).
    ears: (frame, rim radius, thickness, stretch, blend), the frame's x along the ear and z out of
      its opening.
    details: ellipsoids of nose and eyes.
  """

  masses: list = dataclasses.field(default_factory=list)
  cones: list = dataclasses.field(default_factory=list)
  ears: list = dataclasses.field(default_factory=list)
  details: list = dataclasses.field(default_factory=list)


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
  """Returns the rotation (3, 3) of `BoneFrame.turned`."""
  cz, sz, cy, sy = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
  cx, sx = math.cos(roll), math.sin(roll)
  z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
  y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
  x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
  return z @ y @ x


def _frame_along(a: np.ndarray, b: np.ndarray, side: np.ndarray) -> BoneFrame:
  """Returns a frame at `a` with x toward `b`, and y as close to `side` as x allows."""
  x = (b - a) / np.linalg.norm(b - a)
  y = side - x * (side @ x)
  y /= np.linalg.norm(y)
  return BoneFrame(a, np.stack([x, y, np.cross(x, y)], -1))


def build_primitives(shape: BodyShape, pose: Pose) -> Parts:
  """Builds all primitives of one animal in one pose, in the body frame."""
  parts = Parts()
  pelvis, chest, neck, head = _spine(shape, pose)
  _add_trunk(parts, shape, pelvis, chest, neck, head)
  _add_head(parts, shape, head)
  for side in (1, -1):
    _add_leg(parts, shape, pose, "hind", side, pelvis)
    _add_leg(parts, shape, pose, "fore", side, chest)
  _add_tail(parts, shape, pose, pelvis)
  return parts


def _spine(shape: BodyShape, pose: Pose) -> tuple[BoneFrame, BoneFrame, BoneFrame, BoneFrame]:
  """Returns the frames of pelvis, chest, neck and head."""
  # A fatter animal carries its trunk higher, so that the belly clears the floor.
  height = pose.height + 0.16 * (shape.fatness - 1.0)
  pelvis = BoneFrame(np.array([0.0, 0.0, height]), np.eye(3))
  pelvis = pelvis.turned(-0.25 * pose.bend, pose.rear + 0.6 * pose.arch)
  chest = pelvis.moved(0.17, 0, 0).turned(0.4 * pose.bend, -0.75 * pose.arch)
  chest = chest.moved(0.16, 0, 0).turned(0.35 * pose.bend, -0.5 * pose.arch)
  level = 0.25 - 0.55 * pose.rear  # The head stays about level.
  neck = chest.moved(0.02, 0, 0.015).turned(0.25 * pose.bend, level)
  head = neck.moved(0.1, 0, 0)
  head = head.turned(pose.head_yaw, pose.head_pitch - 0.3 - 0.3 * pose.rear, pose.head_roll)
  return pelvis, chest, neck, head


def _add_trunk(
  parts: Parts,
  shape: BodyShape,
  pelvis: BoneFrame,
  chest: BoneFrame,
  neck: BoneFrame,
  head: BoneFrame,
) -> None:
  fat, haunch = shape.fatness, shape.haunch
  middle = _frame_along(pelvis.origin, chest.origin, pelvis.axes[:, 1] + chest.axes[:, 1])
  length = float(np.linalg.norm(chest.origin - pelvis.origin))
  parts.masses += [
    (pelvis.moved(0.005, 0, 0.0), (0.165, 0.14 * fat, 0.155 * fat), 0.05, FUR),
    (middle.moved(0.4 * length, 0, 0.008), (0.19, 0.158 * fat, 0.155 * fat), 0.06, FUR),
    (chest.moved(-0.04, 0, -0.012), (0.16, 0.112 * fat, 0.118 * fat), 0.06, FUR),
  ]
  for side in (1, -1):
    hip = pelvis.moved(0.0, side * 0.1 * fat, -0.05).turned(pitch=0.5)
    shoulder = chest.moved(-0.01, side * 0.075 * fat, -0.04).turned(pitch=1.0)
    parts.masses += [
      (hip, (0.12 * haunch, 0.055 * haunch, 0.1 * haunch), 0.045, FUR),
      (shoulder, (0.085, 0.038, 0.06), 0.045, FUR),
    ]
  parts.cones.append((neck.at(-0.07, 0, 0), head.at(0.03, 0, 0), 0.096, 0.082, 0.06, neck, FUR))


def _add_head(parts: Parts, shape: BodyShape, head: BoneFrame) -> None:
  s, long = shape.head, shape.snout
  mass = lambda at, radii, turn=0.0: (
    head.moved(*(s * np.asarray(at))).turned(pitch=turn),
    tuple(s * np.asarray(radii)),
    0.03,
    FUR,
  )
  parts.masses += [
    mass((0.045, 0, 0.012), (0.115, 0.08, 0.08)),
    mass((0.075, 0, -0.018), (0.085, 0.069, 0.056)),
    mass((0.125, 0, -0.048), (0.06, 0.034, 0.022), -0.15),
  ]
  tip = s * np.array([0.1 + 0.1 * long, 0, -0.034])
  start = s * np.array([0.1, 0, -0.012])
  parts.cones.append((head.at(*start), head.at(*tip), 0.056 * s, 0.021 * s, 0.03, head, FUR))
  nose = head.moved(*(tip + s * np.array([0.017, 0, 0.003])))
  parts.details.append((nose, (0.013 * s, 0.015 * s, 0.012 * s), 0.008, SKIN))
  for side in (1, -1):
    eye = head.moved(s * 0.114, side * s * 0.0545, s * 0.029)
    parts.details.append((eye, (0.0225 * s,) * 3, 0.003, EYE))
    parts.ears.append(_ear(shape, head, side))


def _ear(shape: BodyShape, head: BoneFrame, side: int) -> tuple:
  rim = 0.078 * shape.ear * shape.head
  up = np.array([-0.42, 0.5 * side, 0.78])
  up /= np.linalg.norm(up)
  opening = np.array([0.75, 0.62 * side, 0.12])
  opening -= up * (opening @ up)
  opening /= np.linalg.norm(opening)
  base = shape.head * np.array([0.012, 0.045 * side, 0.06])
  axes = np.stack([up, np.cross(opening, up), opening], -1)
  return (BoneFrame(head.at(*(base + 0.8 * rim * up)), head.axes @ axes), rim, 0.006, 1.12, 0.014)


def _add_leg(
  parts: Parts, shape: BodyShape, pose: Pose, which: str, side: int, root: BoneFrame
) -> None:
  hind = which == "hind"
  joint, ankle, toes = _leg_targets(shape, pose, which, side, root)
  upper, lower = (0.12, 0.12) if hind else (0.085, 0.09)
  middle, ankle = _two_bones(joint, ankle, upper, lower, root.axes[:, 0] * (1 if hind else -1))
  thick = shape.leg
  r = np.array([0.062, 0.036, 0.017] if hind else [0.046, 0.028, 0.0145]) * thick
  bone = lambda a, b: _frame_along(a, b, root.axes[:, 1])
  parts.cones += [
    (joint, middle, r[0], r[1], 0.04, bone(joint, middle), FUR),
    (middle, ankle, 0.9 * r[1], r[2], 0.02, bone(middle, ankle), FUR),
    (ankle, toes, r[2], 0.0155 * thick, 0.012, bone(ankle, toes), SKIN),
  ]
  foot = bone(ankle, toes)
  heading = np.array([*(foot.axes[:, 0] * [1, 1, 0])[:2], min(foot.axes[2, 0], 0.0) * 0.3])
  heading /= np.linalg.norm(heading)
  across = np.cross([0.0, 0.0, 1.0], heading)
  length, radius = (0.052 if hind else 0.036) * shape.foot, 0.0085 * thick
  on_floor = toes - np.array([0, 0, 0.0155 * thick - radius])
  for fan in (-0.42, 0.0, 0.42):
    direction = heading * math.cos(fan) + across * math.sin(fan)
    start = on_floor + across * (0.009 * math.copysign(1, fan) if fan else 0.0)
    end = start + length * direction - np.array([0, 0, 0.25 * radius])
    parts.cones.append((start, end, radius, 0.75 * radius, 0.006, foot, SKIN))


def _leg_targets(
  shape: BodyShape, pose: Pose, which: str, side: int, root: BoneFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the hip or shoulder, the ankle or wrist, and the base of the toes."""
  hind = which == "hind"
  fat, ball = shape.fatness, 0.0155 * shape.leg + _PAD
  joint = root.at(0.015 if hind else 0.0, side * (0.095 if hind else 0.068) * fat, -0.055)
  heading = root.axes[:, 0] * [1, 1, 0]
  heading /= np.linalg.norm(heading)
  across = np.cross([0.0, 0.0, 1.0], heading)
  phase = (pose.gait_phase - _GAIT[which, side]) % 1.0
  if phase < _DUTY:
    step, lift = 0.5 - phase / _DUTY, 0.0
  else:
    swing = (phase - _DUTY) / (1 - _DUTY)
    step, lift = -0.5 * math.cos(math.pi * swing), pose.lift * math.sin(math.pi * swing)
  foot = (0.105 if hind else 0.045) * shape.foot
  reach = (0.075 if hind else 0.035) + pose.stride * step
  spread = side * (0.028 if hind else 0.004)
  toes = joint + heading * reach + across * spread
  toes[2] = ball + lift
  ankle = toes - heading * foot
  ankle[2] = toes[2] + (0.022 if hind else 0.028) + 0.5 * lift
  if not hind and joint[2] > 0.2:  # Reared up: the paws hang before the chest.
    ankle = joint + root.axes @ np.array([0.075, -0.012 * side, -0.075])
    toes = ankle + root.axes @ np.array([0.03, -0.008 * side, -0.035])
  return joint, ankle, toes


def _two_bones(
  a: np.ndarray, b: np.ndarray, upper: float, lower: float, toward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the middle joint of a two-bone chain, and the end that it reaches.

  Args:
    a: (3,) where the chain starts.
    b: (3,) where it should end.
    upper: length of the first bone.
    lower: length of the second bone.
    toward: (3,) the direction in which the middle joint bends.
  """
  span = b - a
  distance = float(np.linalg.norm(span))
  reach = min(max(distance, 1.05 * abs(upper - lower), 0.3 * upper), 0.995 * (upper + lower))
  axis = span / distance
  b = b if distance <= reach else a + axis * reach
  along = (reach**2 + upper**2 - lower**2) / (2 * reach)
  bend = toward - axis * (toward @ axis)
  bend /= np.linalg.norm(bend)
  return a + axis * along + bend * math.sqrt(max(upper**2 - along**2, 0.0)), b


def _add_tail(parts: Parts, shape: BodyShape, pose: Pose, pelvis: BoneFrame) -> None:
  joints = _tail_joints(shape, pose, pelvis)
  u = np.linspace(0.0, 1.0, TAIL_SEGMENTS + 1)
  radii = shape.tail_radius * (1 - u) + 0.4 * shape.tail_radius * u
  side = pelvis.axes[:, 1]
  root = pelvis.at(-0.09, 0, -0.02)
  parts.cones.append((root, joints[0], 0.06, radii[0] * 1.15, 0.03, pelvis, FUR))
  for i in range(TAIL_SEGMENTS):
    frame = _frame_along(joints[i], joints[i + 1], side)
    side = frame.axes[:, 1]
    blend = 0.012 if i == 0 else 0.002
    parts.cones.append((joints[i], joints[i + 1], radii[i], radii[i + 1], blend, frame, SKIN))


def _tail_joints(shape: BodyShape, pose: Pose, pelvis: BoneFrame) -> np.ndarray:
  """Returns points along the tail: from its base to just above the floor, up again at the tip."""
  n = TAIL_SEGMENTS
  start = pelvis.at(-0.18, 0, -0.03)
  start[2] = max(start[2], 0.05)
  u = np.linspace(0.0, 1.0, n + 1)
  floor = 1.4 * shape.tail_radius
  fall = np.clip(u / 0.42, 0, 1)
  z = floor + (start[2] - floor) * (1 - fall * fall * (3 - 2 * fall)) + pose.tail_rise * u**3
  back = math.atan2(-pelvis.axes[1, 0], -pelvis.axes[0, 0])
  middle = 0.5 * (u[1:] + u[:-1])
  wave = pose.tail_wave * np.sin(2 * np.pi * (1.2 * middle - pose.tail_phase))
  yaw = back + pose.tail_yaw * np.minimum(3 * middle, 1) + pose.tail_curl * middle**1.4
  yaw = yaw + wave * np.minimum(4 * middle, 1)
  step = shape.tail_length / n
  dz = np.clip(np.diff(z), -0.95 * step, 0.95 * step)
  flat = np.sqrt(step**2 - dz**2)
  moves = np.stack([flat * np.cos(yaw), flat * np.sin(yaw), dz], -1)
  return np.concatenate([start[None], start + np.cumsum(moves, 0)])
