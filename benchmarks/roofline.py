"""What W1 costs at least: bytes to be moved and operations to be done, stage by stage.

    python -m benchmarks.roofline --model=3d,2d --batch=16
    python -m benchmarks.roofline --measured=w1.json        fractions reached by `w1 --stages`

Nothing is timed here. For B scenes of N splats in V views, I = B V images of P pixels, the counts
are what any implementation of this method must do, every array crossing the memory bus once:

  E   entries of the tile lists after the exact ellipse-tile test, from the XLA binning of
      `--sample` scenes, scaled to B. Each is evaluated at all pixels of its tile, unless all its
      rays have ended before: where a measurement has `walked_m`, that is taken for the kernels.
  F   floats of a splat's packed features, C blended channels, K floats of a splat's parameters,
      all from the arrays themselves. Floats and integers have 4 bytes, sort keys 2.

  projection   K B N read, (F + 11) I N written (features, depth, ellipse, box). Operations: 200 a
               splat and view, twice that backward; these are estimates, and hardly matter.
  projection_and_backward   that, F I N read and K B N written.
  binning      11 I N read; depths sorted in 4 passes, each reading and writing key and value; an
               entry (key 2, slot 4) written once and passed twice through a radix sort of 8 bits.
               Operations: 40 an entry for the ellipse-tile test, an estimate.
  forward      F I N and E read, (C + 2) P I written. A pair of splat and pixel takes `respond`
               (3D: 10 for the quadratic, 1 exponential, 2 for alpha; 2D: 31 with the division,
               the hit, the low-pass and the depth), 2 for weight and T, 2 for each channel.
  backward_rows   F I N, E and 2 (C + 2) P I read (result and its gradient), F floats an entry
               written. A pair takes the forward pass again, 3 C + 6 for the gradients of colours
               and alpha, twice `respond` for its derivative, F additions over the pixels.
  backward_sums   F E read, F I N written, F E additions.
  photometric  3 P I of render and of photograph read in each direction, 3 P I written. Blurs of
               11 taps along both axes: 5 maps forward, 3 back, 2 operations a tap; 40 for the rest.
  adam         parameter, gradient and two moments read, all but the gradient written; 12
               operations.

The time of a stage is the larger of bytes over bandwidth and operations over rate, with an
exponential, a division and an addition one operation each, so the bound is a low one. Whole
iterations are the sum without `projection`, which is a part of `projection_and_backward`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks.w1 import bundles
from benchmarks.workload import VIEWS, Setting, parameters, report, show, views
from jaxsplat_mouse.ops.rasterize import binning

_WORD, _KEY = 4, 2  # bytes
_FACTS = 11  # floats of a splat beside its features: depth, ellipse, box
_RESPOND = {False: 13, True: 31}
_PROJECT = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """What the counts depend on.

  Attributes:
    flat: discs.
    splats: of all scenes.
    images: of all scenes.
    pixels: of an image.
    tile: pixels of a tile.
    parameters: floats of a splat.
    features: floats of its packed form.
    channels: blended floats of a pixel.
    entries: of all tile lists.
    walked: those that are evaluated.
  """

  flat: bool
  splats: int
  images: int
  pixels: int
  tile: int
  parameters: int
  features: int
  channels: int
  entries: float
  walked: float

  @property
  def seen(self) -> int:
    """Splats times views."""
    return self.splats * VIEWS


def count_sizes(setting: Setting, sample: int = 1, walked: float | None = None) -> Sizes:
  """Counts the sizes of the workload itself, with its tile lists made on the default device.

  Args:
    setting: model, batch and sizes.
    sample: scenes whose tile lists are made.
    walked: entries that are evaluated in a batch; None: all.

  Raises:
    ValueError: the tile lists do not hold all entries.
  """
  few = dataclasses.replace(setting, scenes=min(sample, setting.scenes))
  gaussians = parameters(few)
  bundle = jax.jit(bundles(few))(gaussians, views(few))
  lists = jax.jit(lambda b: binning.bin_splats(b, few.options))(bundle)
  if int(lists.overflow.max()):
    raise ValueError(f"{int(lists.overflow.max())} entries did not fit; raise --entries")
  entries = float((lists.ends - lists.starts).sum()) * setting.scenes / few.scenes
  leaves = jax.tree.leaves(gaussians)
  return Sizes(
    flat=setting.flat,
    splats=setting.scenes * setting.splats,
    images=setting.scenes * VIEWS,
    pixels=setting.size**2,
    tile=setting.tile_size**2,
    parameters=sum(math.prod(leaf.shape[2:]) for leaf in leaves),
    features=bundle.features.shape[-1],
    channels=few.options.channel_layout.num_blended,
    entries=entries,
    walked=entries if walked is None else walked,
  )


def count(s: Sizes) -> dict[str, tuple[float, float]]:
  """Returns bytes and operations of every stage."""
  own, packed = s.parameters * s.splats, s.features * s.seen
  image = s.pixels * s.images
  pairs = s.walked * s.tile
  respond = _RESPOND[s.flat]
  forward = respond + 2 + 2 * s.channels
  backward = forward + 3 * s.channels + 6 + 2 * respond + s.features
  blurs = 2 * 11 * 2 * (5 + 3)
  project = own + packed + _FACTS * s.seen
  bin_splats = (_FACTS + 4 * 4) * s.seen * _WORD + 5 * s.entries * (_KEY + _WORD)
  return {
    "projection": (_WORD * project, _PROJECT * s.seen),
    "projection_and_backward": (_WORD * (project + packed + own), 3 * _PROJECT * s.seen),
    "binning": (bin_splats, 40 * s.entries),
    "forward": (_WORD * (packed + s.walked + (s.channels + 2) * image), forward * pairs),
    "backward_rows": (
      _WORD * (packed + s.walked + 2 * (s.channels + 2) * image + s.features * s.walked),
      backward * pairs,
    ),
    "backward_sums": (_WORD * (s.features * s.walked + packed), s.features * s.walked),
    "photometric": (_WORD * 3 * 5 * image, (blurs + 40) * 3 * image),
    "adam": (_WORD * 7 * own, 12 * own),
  }


def bound(
  counts: dict[str, tuple[float, float]], bandwidth: float, flops: float
) -> list[dict[str, Any]]:
  """Returns rows with the least time of each stage and of the whole, in ms.

  Args:
    counts: from `count`.
    bandwidth: TB/s.
    flops: TFLOP/s.
  """
  rows = []
  for stage, (moved, operations) in counts.items():
    memory, compute = moved / bandwidth * 1e-9, operations / flops * 1e-9
    limit = "memory" if memory > compute else "compute"
    row = dict(stage=stage, gb=moved / 1e9, gflop=operations / 1e9)
    rows.append({**row, "least_ms": max(memory, compute), "limit": limit})
  parts = [row for row in rows if row["stage"] != "projection"]
  total = {name: sum(row[name] for row in parts) for name in ("gb", "gflop", "least_ms")}
  return [*rows, {"stage": "whole", **total, "limit": "sum"}]


def compare(rows: list[dict[str, Any]], measured: dict[str, float]) -> None:
  """Adds to rows the measured time and the fraction of the bound that it reaches."""
  for row in rows:
    key = "whole_ms" if row["stage"] == "whole" else row["stage"]
    if key in measured:
      row["measured_ms"] = measured[key]
      row["fraction"] = row["least_ms"] / measured[key]


def read_measured(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of a file of `w1 --time --stages` that name a model and a batch."""
  return [row for row in json.loads(path.read_text())["rows"] if "model" in row]


def table(
  setting: Setting, args: argparse.Namespace, measured: dict[str, Any]
) -> list[dict[str, Any]]:
  """Returns all rows of one setting.

  Args:
    setting: model, batch and sizes.
    args: of the command line.
    measured: row of `read_measured`, or nothing.
  """
  walked = measured["walked_m"] * 1e6 if "walked_m" in measured else None
  sizes = count_sizes(setting, args.sample, walked)
  rows = bound(count(sizes), args.bandwidth, args.flops)
  compare(rows, measured)
  head = dict(model="2d" if setting.flat else "3d", scenes=setting.scenes)
  head["entries_m"] = sizes.entries / 1e6
  return [{**head, **row} for row in rows]


def _wanted(args: argparse.Namespace) -> list[tuple[Setting, dict[str, Any]]]:
  if not args.measured:
    asked = [(model, scenes) for model in args.model.split(",") for scenes in args.batch]
    sizes = dict(splats=args.splats, size=args.size, entries=args.entries)
    return [(Setting(flat=model == "2d", scenes=n, **sizes), {}) for model, n in asked]
  pairs = []
  for row in read_measured(args.measured):
    sizes = dict(splats=row["splats"], size=row["size"], entries=args.entries)
    pairs.append((Setting(flat=row["model"] == "2d", scenes=row["scenes"], **sizes), row))
  return pairs


def main(argv: Sequence[str] | None = None) -> None:
  numbers = lambda text: [int(n) for n in text.split(",")]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", default="3d,2d")
  parser.add_argument("--batch", type=numbers, default="16")
  parser.add_argument("--splats", type=int, default=20_000)
  parser.add_argument("--size", type=int, default=512)
  parser.add_argument("--entries", type=float, default=16.0, help="room for entries, per splat")
  parser.add_argument("--sample", type=int, default=1, help="scenes whose tile lists are made")
  parser.add_argument("--bandwidth", type=float, default=2.9, help="TB/s")
  parser.add_argument("--flops", type=float, default=67.0, help="TFLOP/s")
  parser.add_argument("--measured", type=pathlib.Path, help="JSON of benchmarks.w1")
  args = parser.parse_args(argv)
  rows: list[dict[str, Any]] = []
  for setting, measured in _wanted(args):
    found = table(setting, args, measured)
    for row in found:
      show(row)
    rows += found
  report("roofline", rows, bandwidth=args.bandwidth, flops=args.flops)


if __name__ == "__main__":
  main()
