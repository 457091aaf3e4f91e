"""Proves that a folder is a FaceLift dataset, geometry included.

    python -m jaxsplat_mouse.validate DATASET [flags]

DATASET is a dataset (train.txt, val.txt and scene folders) or one scene (opencv_cameras.json and
images). Why it matters: FaceLift's loader checks no geometry and silently puts another scene in the
place of one that it cannot open. A dataset with mirrored cameras, an orbit that runs the wrong way,
a wrong field of view or premultiplied colours loads, trains, and gives a useless model.

Checked in every scene:
  * opencv_cameras.json: readable, every key there and of its type, as many frames as --views
  * images: inside the scene folder, whole square RGBA PNGs of --size pixels
  * alpha: straight, colour 0 where alpha is 0, not empty, off the image edge
  * w2c: a rotation (determinant +1) and a translation
  * the exact orbit: --distance from the origin, --elevation, camera i at azimuth 360 i / views
    counter-clockwise from +X, Z up, to 1e-5; fx = fy of --fov, the principal point in the middle
  * one solid: the visual hull of all silhouettes explains each of them to --hull_iou
Checked in a dataset:
  * lists: no blank line, no scene twice, none in both, all there, all inside DATASET, none left out
  * manifest.jsonl, where there is one: whole lines, files unchanged since written (SHA-256)
  * mouse_gslrm_synthetic.yaml, where there is one: its paths exist; no leftovers of killed writers

Exit status: 0 no fault; 1 faults, one line each with file, field and what was expected.

Examples:
  python -m jaxsplat_mouse.validate out/dataset
  python -m jaxsplat_mouse.validate out/dataset --relocate       after moving or copying it
  python -m jaxsplat_mouse.validate scene --may_touch_edge       an object that leaves the frame
  python -m jaxsplat_mouse.validate input --noorbit --views=6    cameras of one's own
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.validation.rules import Rules

ARGUMENT = "DATASET"
_RULES = {
  "views": "Frames in a scene.",
  "size": "Side of the square images in pixels.",
  "fov": "Field of view in degrees.",
  "elevation": "Elevation of the orbit in degrees.",
  "distance": "Distance of the cameras from the origin.",
  "orbit": "Cameras stand on the exact orbit; --noorbit accepts any rigid cameras.",
  "hull_iou": "Share of each silhouette that the common hull must explain.",
  "may_touch_edge": "Accept objects that run out of the frame.",
  "any_hidden_colour": "Accept colour where alpha is 0.",
}


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  define_for: dict[type, Callable[..., object]] = {
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_boolean,
  }
  for name, text in _RULES.items():
    default = getattr(Rules(), name)
    define_for[type(default)](name, default, text, flag_values=flags)
  absl_flags.DEFINE_integer(
    "threads", 0, "Scenes checked at a time; 0: one for each core.", flag_values=flags
  )
  absl_flags.DEFINE_integer("max_faults", 200, "Faults printed; 0: all of them.", flag_values=flags)
  absl_flags.DEFINE_boolean(
    "relocate",
    False,
    "First rewrite the paths in lists and YAML to where DATASET lies now.",
    flag_values=flags,
  )


def main(flags: FlagValues, path: str) -> int:
  """Checks a folder and prints its faults; returns the exit status."""
  from jaxsplat_mouse.validation.dataset_checks import check_dataset, relocate_dataset

  given: dict[str, Any] = {name: flags[name].value for name in _RULES}
  if flags.relocate:
    changed = relocate_dataset(path)
    print(f"relocated: {', '.join(changed) or 'nothing to change'}")
  report = check_dataset(path, Rules(**given), flags.threads)
  shown = report.faults[: flags.max_faults or None]
  print(*shown, sep="\n", end="\n" * bool(shown))
  if len(shown) < len(report.faults):
    print(f"... and {len(report.faults) - len(shown)} more (--max_faults=0 prints all)")
  counts = ", ".join(f"{name} {count}" for name, count in report.scenes.items())
  print(
    f"{sum(report.scenes.values())} scenes ({counts}), {report.views} views, "
    f"{len(report.faults)} faults"
  )
  return 1 if report.faults else 0
