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

import sys
from collections.abc import Sequence

from absl import app, flags

from jaxsplat_mouse.validation.dataset_checks import check_dataset, relocate_dataset
from jaxsplat_mouse.validation.rules import Rules

_DEFAULTS = Rules()
_VIEWS = flags.DEFINE_integer("views", _DEFAULTS.views, "Frames in a scene.")
_SIZE = flags.DEFINE_integer("size", _DEFAULTS.size, "Side of the square images in pixels.")
_FOV = flags.DEFINE_float("fov", _DEFAULTS.fov, "Field of view in degrees.")
_ELEVATION = flags.DEFINE_float("elevation", _DEFAULTS.elevation, "Of the orbit, in degrees.")
_DISTANCE = flags.DEFINE_float("distance", _DEFAULTS.distance, "Of the cameras from the origin.")
_ORBIT = flags.DEFINE_boolean(
  "orbit", _DEFAULTS.orbit, "Cameras stand on the exact orbit; --noorbit takes any rigid cameras."
)
_HULL_IOU = flags.DEFINE_float(
  "hull_iou", _DEFAULTS.hull_iou, "Share of each silhouette that the common hull must explain."
)
_MAY_TOUCH_EDGE = flags.DEFINE_boolean(
  "may_touch_edge", _DEFAULTS.may_touch_edge, "For objects that run out of the frame."
)
_ANY_HIDDEN_COLOUR = flags.DEFINE_boolean(
  "any_hidden_colour", _DEFAULTS.any_hidden_colour, "Accept colour where alpha is 0."
)
_THREADS = flags.DEFINE_integer("threads", 0, "Scenes checked at a time; 0: one for each core.")
_MAX_FAULTS = flags.DEFINE_integer("max_faults", 200, "Faults printed; 0: all of them.")
_RELOCATE = flags.DEFINE_boolean(
  "relocate", False, "First rewrite the paths in lists and YAML to where DATASET lies now."
)


def main(argv: Sequence[str]) -> int:
  """Checks the one folder named on the command line and prints what is wrong with it."""
  if len(argv) != 2:
    print(f"{len(argv) - 1} folders named; expected one DATASET (see --help)", file=sys.stderr)
    return 1
  rules = Rules(
    views=_VIEWS.value,
    size=_SIZE.value,
    fov=_FOV.value,
    elevation=_ELEVATION.value,
    distance=_DISTANCE.value,
    orbit=_ORBIT.value,
    hull_iou=_HULL_IOU.value,
    may_touch_edge=_MAY_TOUCH_EDGE.value,
    any_hidden_colour=_ANY_HIDDEN_COLOUR.value,
  )
  if _RELOCATE.value:
    changed = relocate_dataset(argv[1])
    print(f"relocated: {', '.join(changed) or 'nothing to change'}")
  report = check_dataset(argv[1], rules, _THREADS.value)
  shown = report.faults[: _MAX_FAULTS.value or None]
  print(*shown, sep="\n", end="\n" * bool(shown))
  if len(shown) < len(report.faults):
    print(f"... and {len(report.faults) - len(shown)} more (--max_faults=0 prints all)")
  counts = ", ".join(f"{name} {count}" for name, count in report.scenes.items())
  print(
    f"{sum(report.scenes.values())} scenes ({counts}), {report.views} views, "
    f"{len(report.faults)} faults"
  )
  return 1 if report.faults else 0


def _with_underscores(argument: str) -> str:
  """`--may-touch-edge` as the flag is spelled, `--may_touch_edge`."""
  name, equals, value = argument.partition("=")
  return name[:2] + name[2:].replace("-", "_") + equals + value if name[:2] == "--" else argument


def start() -> None:
  """Parses flags and runs the command."""
  app.run(main, argv=[_with_underscores(argument) for argument in sys.argv])
