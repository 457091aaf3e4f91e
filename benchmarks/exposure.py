"""How well `prepare --exposure` knows the gains of a rig's cameras, by what could deceive it.

    python -m benchmarks.exposure                    three mice, dull and shining coats; on a CPU
    python -m benchmarks.exposure --coats=black --moments=24

A built-in mouse walks and turns before the real rig, under lights that stand still. Its pictures
are exact, or their exposure, masks or poses are not. A row of the table: root mean square error of
the log gains in percent as it would be without a correction, and as measured; the error that the
measurement states; whether the gains are taken out of the pictures; disagreement of the cameras
about the animal's colours before and after, percent.
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np

from jaxsplat_mouse.capture import exposure
from jaxsplat_mouse.capture.exposure import ColorReadings
from jaxsplat_mouse.capture.recording_exposure import read_scene_colors
from jaxsplat_mouse.procedural_mouse.disturb import (
  apply_exposure,
  exposure_gains,
  grow_masks,
  shake_cameras,
)
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.scene import Scene, scene_from_rgba

_SEEDS = {"agouti": 301, "pied": 302, "black": 303, "white": 305}
_TURN = math.pi * (3.0 - math.sqrt(5.0))  # radians between two moments: all headings, evenly
_SHEENS = {"dull": 0.0, "shining": 0.3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disturbance:
  """What is wrong with the pictures of a recording.

  Attributes:
    spread: of the cameras' gains.
    grow: pixels by which masks are too wide.
    degrees: standard deviation of the cameras' turns.
  """

  spread: float = 0.0
  grow: int = 0
  degrees: float = 0.0


DISTURBANCES = {
  "none": Disturbance(),
  "exposure": Disturbance(spread=0.15),
  "slight exposure": Disturbance(spread=0.05),
  "masks": Disturbance(grow=1),
  "poses": Disturbance(degrees=0.1),
  "all": Disturbance(spread=0.15, grow=1, degrees=0.1),
}


def make_moments(coat: str, sheen: float, count: int, width: int) -> list[Scene]:
  """Renders the moments of a recording."""
  cameras, mouse = dannce_cameras(width), make_mouse(_SEEDS[coat], "walk", coat)
  lighting = Lighting(specular=np.float32(sheen))
  found = []
  for moment in range(count):
    c, s = math.cos(_TURN * moment), math.sin(_TURN * moment)
    x, y, z = mouse.translation
    turned = dataclasses.replace(
      walking(mouse, 0.37 * moment),
      yaw=mouse.yaw + _TURN * moment,
      translation=(c * x - s * y, s * x + c * y, z),
    )
    found.append(scene_from_rgba(cameras, render_truth(turned, cameras, lighting=lighting).rgba))
  return found


def disturb(scene: Scene, wrong: Disturbance, gains: np.ndarray) -> Scene:
  """Returns the scene as a recording with faults shows it; gains (V, 3)."""
  scene = apply_exposure(scene, gains)
  if wrong.grow:
    scene = grow_masks(scene, wrong.grow)
  return shake_cameras(scene, 0, wrong.degrees)


def measure(scenes: list[Scene], wrong: Disturbance, seed: int) -> list[str]:
  """Measures one recording; the cells of its row."""
  views = scenes[0].num_views
  gains = exposure_gains(views, seed, wrong.spread) if wrong.spread else np.ones((views, 3))
  found: list[ColorReadings] = []
  for scene in scenes:
    readings = read_scene_colors(disturb(scene, wrong, gains))
    if readings is not None:
      found.append(readings)
  estimate = exposure.estimate_exposure(exposure.join_moments(found, views))
  true = np.log(gains) - np.log(gains).mean(0)
  rms = lambda x: f"{100 * np.sqrt(np.square(x).mean()):.1f}"
  applied = estimate.significant and estimate.confirmed
  return [
    rms(true),
    rms(np.log(estimate.gains) - true),
    rms(estimate.errors),
    "yes" if applied else "no",
    f"{100 * estimate.disagreement_before.mean():.1f}",
    f"{100 * estimate.disagreement_after.mean():.1f}",
  ]


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--coats", default="agouti,pied,black", help=f"of {', '.join(_SEEDS)}")
  parser.add_argument("--moments", type=int, default=16)
  parser.add_argument("--width", type=int, default=252, help="pixels, a multiple of 9")
  parser.add_argument("--seed", type=int, default=0, help="of the gains")
  given = parser.parse_args()
  devices.set_up_cache()
  heads = ["coat", "fault", "error without", "error with", "stated", "applied", "before", "after"]
  print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
  for coat in given.coats.split(","):
    for name, sheen in _SHEENS.items():
      scenes = make_moments(coat, sheen, given.moments, given.width)
      for fault, wrong in DISTURBANCES.items():
        cells = measure(scenes, wrong, given.seed)
        print("| " + " | ".join([f"{coat}, {name}", fault, *cells]) + " |", flush=True)


if __name__ == "__main__":
  main()
