"""Meshes of fits against the true surface of built-in mice: Chamfer distance and normal error.

    python -m benchmarks.surface --size=preview --mice=2
    python -m benchmarks.surface --config=2dgs,3dgs                   full size, on a GPU
    python -m benchmarks.surface --config=2dgs --size=tiny --mice=1   a check on a CPU

Expected of the first: Chamfer distance .60 % and normals 25.8 degrees in 2dgs, .62 % and 20.8
degrees in 3dgs.

Distances are in percent of a canonical unit, normals in degrees; see `meshing.compare_surfaces`.
Needs the extra `mesh`. Prints a table and, if $OUT is set, writes surface.json into it.
"""

from __future__ import annotations

import pathlib

import numpy as np

from benchmarks import quality, walking
from benchmarks.workload import report
from jaxsplat_mouse import meshing
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.procedural_mouse.mouse import truth_surface_points
from jaxsplat_mouse.run.fit_mesh import fit_to_mesh
from jaxsplat_mouse.runtime import devices

_POINTS = 20_000


def run(
  recipes: list[quality.Recipe],
  seeds: list[int],
  size: int,
  cache: pathlib.Path | None,
) -> list[dict]:
  """Compares the mesh of every fit with the true surface.

  Args:
    recipes: how to fit.
    seeds: of the animals.
    size: side of the photographs, pixels.
    cache: a folder that stores the photographs.

  Returns:
    one row for each recipe and animal.
  """
  frames = [walking.Frame(seed=s, phase=0.0) for s in seeds]
  trials = walking.trials(frames, size, 1, cache)
  rows = []
  for recipe in recipes:
    fits, _ = quality.fit_trials(trials, seeds, recipe)
    for frame, trial, gaussians in zip(frames, trials, fits, strict=True):
      width = float(filter_width(trial.scene, recipe.fit))
      found = meshing.sample_surface(fit_to_mesh(gaussians, filter_width=width), _POINTS)
      points, normals = truth_surface_points(frame.mouse, _POINTS)
      moved = trial.similarity.points(points)
      errors = meshing.compare_surfaces(*found, moved, normals @ trial.similarity.rotation.T)
      rows.append({"recipe": recipe.name, "mouse": frame.seed, **errors})
  return rows


def main() -> None:
  parser = walking.make_parser(__doc__.splitlines()[0], "2dgs,3dgs")
  args = parser.parse_args()
  devices.set_up_cache()
  size, _, shrink = quality.SIZES[args.size]
  recipes = [quality.make_recipe(name, name, shrink) for name in args.config.split(",")]
  rows = run(recipes, list(range(args.mice)), size, args.cache)
  for recipe in recipes:
    own = [row for row in rows if row["recipe"] == recipe.name]
    mean = lambda key, own=own: float(np.mean([row[key] for row in own]))
    lengths = "  ".join(
      f"{k} {100 * mean(k):.2f} %" for k in ("accuracy", "completeness", "chamfer")
    )
    print(f"{recipe.name}: {lengths}  normals {mean('normal_error'):.1f} degrees")
  report("surface", rows)


if __name__ == "__main__":
  main()
