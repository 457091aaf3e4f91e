"""Shows fits in the browser: splats, input cameras with their photographs, and dataset cameras.

The canonical frame is the world frame, with Z up. The server accepts connections from this machine
only.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, covariances, opacities
from jaxsplat_mouse.io import ply
from jaxsplat_mouse.math import matrix_to_quaternion
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.run import fit_store
from jaxsplat_mouse.run.outputs import own_rgba
from jaxsplat_mouse.run.scene_input import read_canonical_scene
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import without_padding
from jaxsplat_mouse.spherical_harmonics import C0

HOST = "127.0.0.1"
_PHOTOGRAPH_SIDE = 320  # longer side of a photograph in its frustum, pixels
_FRUSTUM_SIZE = 0.22  # of an input camera, world units
_ORBIT_VIEWS = 32
_INPUT_COLOR, _ORBIT_COLOR = (18, 128, 108), (224, 165, 48)
# First position of the viewer's camera: azimuth and elevation in degrees, distance in world units.
_FIRST_AZIMUTH, _FIRST_ELEVATION, _FIRST_DISTANCE = -45.0, 25.0, 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplatCloud:
  """A fit as the viewer draws it, NumPy float32.

  Attributes:
    centers: (N, 3), world units.
    covariances: (N, 3, 3), world units squared.
    colors: (N, 3) in [0, 1], the same from every direction.
    opacities: (N, 1) in [0, 1].
  """

  centers: np.ndarray
  covariances: np.ndarray
  colors: np.ndarray
  opacities: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frustum:
  """A camera as the viewer draws it.

  Attributes:
    fov: vertical field of view, radians.
    aspect: width over height.
    wxyz: camera-to-world rotation as a quaternion (4,); OpenCV axes.
    position: (3,), world units.
    image: uint8 (h, w, 3), or Nfrustum.
  """

  fov: float
  aspect: float
  wxyz: np.ndarray
  position: np.ndarray
  image: np.ndarray | None


def to_splat_cloud(gaussians: Gaussians) -> SplatCloud:
  """Converts Gaussians to what the viewer draws; discs become very thin ellipsoids."""
  solid = ply.thin_ellipsoids(gaussians) if isinstance(gaussians, Gaussians2D) else gaussians
  colors = np.clip(0.5 + C0 * np.asarray(gaussians.sh)[:, 0], 0.0, 1.0)
  return SplatCloud(
    centers=np.asarray(gaussians.means, np.float32),
    covariances=np.asarray(covariances(solid), np.float32),
    colors=colors.astype(np.float32),
    opacities=np.asarray(opacities(gaussians), np.float32)[:, None],
  )


def to_frusta(cameras: Cameras, photographs: Sequence[np.ndarray | None]) -> list[Frustum]:
  """Converts cameras (V,) and their photographs, uint8 (H, W, 3) or None, to frusta.

  A frustum is symmetric: it does not show a principal point off the image centre.
  """
  poses = np.linalg.inv(np.asarray(cameras.world_to_camera, np.float64))
  wxyz = np.asarray(jax.vmap(matrix_to_quaternion)(poses[:, :3, :3].astype(np.float32)))
  focal = np.asarray(cameras.intrinsics)[:, 1]
  return [
    Frustum(
      fov=float(2 * np.arctan(cameras.height / (2 * focal[i]))),
      aspect=cameras.width / cameras.height,
      wxyz=wxyz[i],
      position=poses[i, :3, 3],
      image=None if image is None else _shrink(image),
    )
    for i, image in enumerate(photographs)
  ]


def first_position(positions: Sequence[np.ndarray]) -> tuple[float, float, float]:
  """Returns where the viewer's camera starts, looking at the origin.

  It starts between two input cameras, in the middle of their widest gap around the Z axis, where a
  fit is least certain, and at their distance.

  Args:
    positions: of the input cameras, (3,) each, world units; may be empty.

  Returns:
    x, y, z in world units.
  """
  azimuth, distance = _FIRST_AZIMUTH, _FIRST_DISTANCE
  if positions:
    x, y, _ = np.transpose(positions)
    around = np.sort(np.degrees(np.arctan2(y, x)))
    gaps = np.diff(around, append=around[0] + 360.0)
    # Gaps within one degree of the widest count as equal: the one nearest to the default is taken.
    middles = (around + gaps / 2)[gaps > gaps.max() - 1.0]
    off = np.abs((middles - azimuth + 180.0) % 360.0 - 180.0)
    azimuth = float(middles[off.argmin()])
    distance = float(np.median(np.linalg.norm(positions, axis=1)))
  a, e = np.radians(azimuth), np.radians(_FIRST_ELEVATION)
  x, y, z = distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
  return float(x), float(y), float(z)


def _shrink(image: np.ndarray) -> np.ndarray:
  picture = Image.fromarray(image)
  picture.thumbnail((_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE))
  return np.asarray(picture)


class StoredFits:
  """The fits at a path: a PLY file, one fit of a run, or all fits of a run.

  Attributes:
    names: of the fits, sorted.
  """

  def __init__(self, path: pathlib.Path):
    """Finds the fits without reading them.

    Args:
      path: a PLY file, a folder `WORKDIR/fits/SCENE`, or a folder of a run.

    Raises:
      InputError: the path is none of these, or the run has no fits.
    """
    self._workdir: Workdir | None = None
    self._file = path if path.suffix == ".ply" else None
    if self._file is not None:
      self.names = [path.stem]
      return
    if (path / fit_store.SCENE_FILE).is_file() and path.parent.name == "fits":
      self._workdir, self.names = Workdir(path.parent.parent), [path.name]
      return
    self._workdir = Workdir(path)
    self.names = sorted(p.parent.name for p in self._workdir.fits.glob(f"*/{fit_store.SCENE_FILE}"))
    if not self.names:
      raise InputError(path, "", "no fit in it; expected FILE.ply, WORKDIR/fits/SCENE or WORKDIR")

  def load(self, name: str) -> tuple[SplatCloud, list[Frustum], str]:
    """Reads a fit.

    Args:
      name: one of `names`.

    Returns:
      the splats, the frusta of the input cameras, and why there are no frusta, or nothing.

    Raises:
      InputError: the fit is missing or broken.
    """
    if self._workdir is None:
      assert self._file is not None
      return to_splat_cloud(ply.read_gaussians(self._file)), [], "A PLY file has no cameras."
    saved = fit_store.load_fit(self._workdir, name)
    splats = to_splat_cloud(saved.gaussians)
    try:
      scene = read_canonical_scene(saved.source, saved.similarity, saved.info.get("agreement"))
    except InputError as error:
      return splats, [], str(error)
    photographs = [contact_sheet.rgba_to_rgb(view) for view in own_rgba(scene)]
    return splats, to_frusta(without_padding(scene).cameras, photographs), ""


class SplatViewer:
  """A web page with the splats and cameras of one fit at a time, and its controls."""

  def __init__(self, fits: StoredFits, port: int):
    """Starts the server.

    Args:
      fits: to choose from.
      port: of the page; the next free one where it is taken.

    Raises:
      InputError: viser is not installed.
    """
    viser = _import_viser()
    self._fits = fits
    self.server = viser.ViserServer(host=HOST, port=port, label="jaxsplat_mouse", verbose=False)
    self.server.scene.set_up_direction("+z")
    self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
    self.server.initial_camera.position = first_position([])
    gui: Any = self.server.gui
    self._scene = gui.add_dropdown("scene", fits.names, initial_value=fits.names[0])
    self._cameras = gui.add_checkbox("input cameras", True)
    self._orbit = gui.add_checkbox("dataset cameras", False)
    self._note = gui.add_markdown("")
    self._scene.on_update(lambda _: self.show())
    self._cameras.on_update(lambda _: self._show_cameras())
    self._orbit.on_update(lambda _: self._show_cameras())
    self._add_orbit()
    self.show()

  @property
  def url(self) -> str:
    """Address of the page."""
    return f"http://{HOST}:{self.server.get_port()}"

  def show(self) -> None:
    """Shows the fit chosen on the page, or why it cannot be read."""
    name = self._scene.value
    try:
      splats, frusta, note = self._fits.load(name)
    except InputError as error:
      self._note.content = str(error)
      return
    self.server.scene.remove_by_name("/input")
    self.server.scene.add_gaussian_splats(
      "/splats", splats.centers, splats.covariances, splats.colors, splats.opacities
    )
    self._add_frusta("/input", frusta, _INPUT_COLOR)
    self._show_cameras()
    self.server.initial_camera.position = first_position([frustum.position for frustum in frusta])
    lines = [f"**{name}**", f"{len(splats.centers):,} Gaussians, {len(frusta)} photographs", note]
    self._note.content = "\n\n".join(filter(None, lines))

  def _add_orbit(self) -> None:
    cameras = generate_camera_poses(_ORBIT_VIEWS)
    frusta = to_frusta(cameras, [None] * _ORBIT_VIEWS)
    self._add_frusta("/orbit", frusta, _ORBIT_COLOR, scale=0.5)

  def _add_frusta(
    self, folder: str, frusta: Sequence[Frustum], color: tuple[int, int, int], scale: float = 1.0
  ) -> None:
    self.server.scene.add_frame(folder, show_axes=False)
    for i, frustum in enumerate(frusta):
      self.server.scene.add_camera_frustum(
        f"{folder}/{i:03d}",
        fov=frustum.fov,
        aspect=frustum.aspect,
        scale=_FRUSTUM_SIZE * scale,
        color=color,
        image=frustum.image,
        wxyz=frustum.wxyz,
        position=frustum.position,
      )

  def _show_cameras(self) -> None:
    self.server.scene.add_frame("/input", show_axes=False, visible=self._cameras.value)
    self.server.scene.add_frame("/orbit", show_axes=False, visible=self._orbit.value)


def _import_viser() -> ModuleType:
  try:
    import viser
  except ImportError:
    problem = "needs viser; expected pip install 'jaxsplat-mouse[viewer]'"
    raise InputError("view", "", problem) from None
  return viser
