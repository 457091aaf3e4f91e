"""Writes the meshes of fits: of one splat PLY, or of every fit of a run."""

from __future__ import annotations

import os
import pathlib

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import mesh_writer, ply
from jaxsplat_mouse.run.fit_mesh import MeshSettings, fit_to_mesh
from jaxsplat_mouse.run.fit_store import GAUSSIANS_FILE, read_filter_width
from jaxsplat_mouse.run.workdir import Workdir

MESH_FILE = "mesh.ply"


def find_fits(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the splat PLY of every fit of a run, in the order of their scenes' names.

  Raises:
    InputError: there are no fits.
  """
  fits = Workdir(workdir).fits
  found = sorted(fits.glob(f"*/{GAUSSIANS_FILE}"))
  if not found:
    raise InputError(fits, "", "no fits; expected the --workdir of a run")
  return found


def write_fit_mesh(
  gaussians: str | os.PathLike[str], output: str | os.PathLike[str], settings: MeshSettings
) -> None:
  """Writes the mesh of one splat PLY, which appears whole or not at all.

  Args:
    gaussians: the PLY; the filter of its fit is read from the file beside it.
    output: the mesh: .ply, .obj or .glb.
    settings: how a fit becomes a mesh.

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
    mesh_writer.write_mesh(partial, solid)
    os.replace(partial, target)
  except OSError as error:
    raise InputError(output, "", f"cannot be written ({error.strerror or error})") from None
  finally:
    partial.unlink(missing_ok=True)
