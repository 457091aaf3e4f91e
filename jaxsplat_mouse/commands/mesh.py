"""Turns the fits of a run into coloured meshes.

  python -m jaxsplat_mouse.mesh --workdir=DIR
      every fit of the run: DIR/fits/SCENE/mesh.ply, in the canonical frame (scene.json has the
      transform to the photographs' world)

  python -m jaxsplat_mouse.mesh --gaussians=FILE.ply --output=FILE.obj
      one splat PLY; the output's ending is .ply, .obj or .glb

Takes scikit-image and trimesh: pip install 'jaxsplat-mouse[mesh]'.

Exit status: 0 done; 1 nothing could be written; 3 some fits have no mesh and are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.errors import InputError

if TYPE_CHECKING:
  from jaxsplat_mouse.run.fit_mesh import MeshSettings


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  for name, text in (
    ("workdir", "The folder of a run of jaxsplat_mouse.main."),
    ("gaussians", "One splat PLY, in place of a run."),
    ("output", "The mesh to write for it: .ply, .obj or .glb."),
  ):
    absl_flags.DEFINE_string(name, None, text, flag_values=flags)
  absl_flags.DEFINE_integer(
    "resolution",
    256,
    "Samples along each side of the grid.",
    lower_bound=16,
    upper_bound=1024,
    flag_values=flags,
  )


def main(flags: FlagValues) -> int:
  """Writes the meshes; returns the exit status."""
  if not (flags.gaussians and flags.output) and not flags.workdir:
    raise InputError("--workdir", "", "missing; expected it, or --gaussians and --output")
  from jaxsplat_mouse.run import mesh_files
  from jaxsplat_mouse.run.fit_mesh import MeshSettings
  from jaxsplat_mouse.runtime import devices

  settings = MeshSettings(resolution=flags.resolution)
  devices.set_up_cache()
  if flags.gaussians and flags.output:
    mesh_files.write_fit_mesh(flags.gaussians, flags.output, settings)
    print(flags.output)
    return 0
  return _write_run_meshes(flags.workdir, settings)


def _write_run_meshes(workdir: str, settings: MeshSettings) -> int:
  from jaxsplat_mouse.run import mesh_files

  fits = mesh_files.find_fits(workdir)
  failed = 0
  for gaussians in fits:
    try:
      mesh_files.write_fit_mesh(gaussians, gaussians.with_name(mesh_files.MESH_FILE), settings)
      print(gaussians.with_name(mesh_files.MESH_FILE), flush=True)
    except InputError as error:
      failed += 1
      print(f"{gaussians.parent.name}: no mesh: {error}", flush=True)
  if failed == len(fits):
    return 1
  return 3 if failed else 0
