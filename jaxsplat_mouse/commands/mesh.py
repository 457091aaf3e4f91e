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

import os
import pathlib

from absl import flags

from jaxsplat_mouse import meshing
from jaxsplat_mouse.commands import console
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import ply
from jaxsplat_mouse.run.fit_mesh import MeshSettings, fit_to_mesh
from jaxsplat_mouse.run.fit_store import GAUSSIANS_FILE, read_filter_width
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices


def define_flags() -> list[str]:
  """Defines the command's flags; their names."""
  flags.DEFINE_string("workdir", None, "The folder of a run of jaxsplat_mouse.main.")
  flags.DEFINE_string("gaussians", None, "One splat PLY, in place of a run.")
  flags.DEFINE_string("output", None, "The mesh to write for it: .ply, .obj or .glb.")
  flags.DEFINE_integer("resolution", 256, "Samples along each side of the grid.", 16, 1024)
  return ["workdir", "gaussians", "output", "resolution"]


def main() -> int:
  """The command; its exit status."""
  given = {name: flags.FLAGS[name].value for name in ("workdir", "gaussians", "output")}
  settings = MeshSettings(resolution=int(flags.FLAGS["resolution"].value or 256))
  devices.set_up_cache()
  if given["gaussians"] and given["output"]:
    export(given["gaussians"], given["output"], settings)
    print(given["output"])
    return 0
  if not given["workdir"]:
    raise InputError("--workdir", "", "missing; expected it, or --gaussians and --output")
  return export_run(Workdir(given["workdir"]), settings)


def export_run(workdir: Workdir, settings: MeshSettings) -> int:
  """Meshes of all fits of a run; the exit status.

  Raises:
    InputError: there are no fits.
  """
  found = sorted(workdir.fits.glob(f"*/{GAUSSIANS_FILE}"))
  if not found:
    raise InputError(workdir.fits, "", "no fits; expected the --workdir of a run")
  failed = 0
  for path in found:
    try:
      export(path, path.with_name("mesh.ply"), settings)
      print(path.with_name("mesh.ply"))
    except InputError as error:
      failed += 1
      print(f"{path.parent.name}: no mesh: {error}")
  if failed == len(found):
    return 1
  return 3 if failed else 0


def export(
  gaussians: str | os.PathLike[str], output: str | os.PathLike[str], settings: MeshSettings
) -> None:
  """Writes the mesh of one splat PLY.

  Raises:
    InputError: a file that cannot be read or written, a package that is missing, or no surface.
  """
  try:
    width = read_filter_width(pathlib.Path(gaussians).parent)
    solid = fit_to_mesh(ply.read_gaussians(gaussians), settings, width)
  except ImportError:
    problem = "meshes take scikit-image: pip install 'jaxsplat-mouse[mesh]'"
    raise InputError(gaussians, "", problem) from None
  except ValueError as error:
    raise InputError(gaussians, "", str(error)) from None
  target = pathlib.Path(output)
  partial = target.with_name(f".{target.stem}.partial{target.suffix}")
  try:
    meshing.write_mesh(partial, solid)
    os.replace(partial, target)
  except OSError as error:
    raise InputError(output, "", f"cannot be written ({error.strerror or error})") from None
  finally:
    partial.unlink(missing_ok=True)


def start() -> None:
  """Parses flags and runs the command."""
  names = define_flags()
  console.run(main, str(__doc__), names)
