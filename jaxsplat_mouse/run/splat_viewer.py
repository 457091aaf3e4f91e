"""A fit in the browser: its splats, the cameras it was made from, and their photographs.

Everything is shown in the canonical frame, Z up. The server answers this machine only.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxsplat_mouse import math as jm
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, covariances, opacities
from jaxsplat_mouse.io import ply
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.run import fit_store
from jaxsplat_mouse.run.outputs import own_rgba, real_cameras
from jaxsplat_mouse.run.scene_input import read_canonical_scene
from jaxsplat_mouse.run.workdir import Workdir

HOST = "127.0.0.1"
_C0 = 0.28209479177387814  # the spherical harmonic of degree 0
_PICTURE_SIDE = 320  # pixels, of a photograph in its frustum
_FRUSTUM = 0.22  # its size, world units
_ORBIT_VIEWS = 32
_FIRST_LOOK = (-45.0, 25.0, 2.0)  # azimuth and elevation in degrees, distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splats:
  """What is drawn of a fit, NumPy float32.

  Attributes:
    centers: (N, 3).
    covariances: (N, 3, 3).
    colors: (N, 3) in [0, 1], the same from every side.
    opacities: (N, 1).
  """

  centers: np.ndarray
  covariances: np.ndarray
  colors: np.ndarray
  opacities: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frustum:
  """A camera as it is drawn.

  Attributes:
    fov: vertical, radians.
    aspect: width over height.
    wxyz: camera -> world rotation; OpenCV axes.
    position: (3,).
    image: uint8 (h, w, 3), or None.
  """

  fov: float
  aspect: float
  wxyz: np.ndarray
  position: np.ndarray
  image: np.ndarray | None


def to_splats(gaussians: Gaussians) -> Splats:
  """Ellipsoids of a fit; discs become very thin ones."""
  solid = ply.thin_ellipsoids(gaussians) if isinstance(gaussians, Gaussians2D) else gaussians
  colors = np.clip(0.5 + _C0 * np.asarray(gaussians.sh)[:, 0], 0.0, 1.0)
  return Splats(
    centers=np.asarray(gaussians.means, np.float32),
    covariances=np.asarray(covariances(solid), np.float32),
    colors=colors.astype(np.float32),
    opacities=np.asarray(opacities(gaussians), np.float32)[:, None],
  )


def to_frusta(cameras: Cameras, photographs: Sequence[np.ndarray | None]) -> list[Frustum]:
  """Frusta of (V,) cameras with their images, uint8 (H, W, 3) or None.

  A principal point off the middle is not shown: a viewer's frustum is symmetric.
  """
  poses = np.linalg.inv(np.asarray(cameras.world_to_camera, np.float64))
  wxyz = np.asarray(jax.vmap(jm.matrix_to_quaternion)(poses[:, :3, :3].astype(np.float32)))
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
  """Where a page first looks from, at the origin: between two cameras at (3,), as far as they."""
  azimuth, elevation, distance = _FIRST_LOOK
  if positions:
    x, y, _ = np.transpose(positions)
    around = np.sort(np.degrees(np.arctan2(y, x)))
    gaps = np.diff(around, append=around[0] + 360.0)
    # The middle of the widest gap; of gaps that are as wide to a degree, the one nearest in front.
    middles = (around + gaps / 2)[gaps > gaps.max() - 1.0]
    off = np.abs((middles - azimuth + 180.0) % 360.0 - 180.0)
    azimuth = float(middles[off.argmin()])
    distance = float(np.median(np.linalg.norm(positions, axis=1)))
  a, e = np.radians(azimuth), np.radians(elevation)
  x, y, z = distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
  return float(x), float(y), float(z)


def _shrink(image: np.ndarray) -> np.ndarray:
  picture = Image.fromarray(image)
  picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
  return np.asarray(picture)


class Content:
  """What a path holds: one PLY, or the fits of a run.

  Attributes:
    names: of the fits, sorted.
  """

  def __init__(self, path: pathlib.Path):
    """Looks what is there.

    Raises:
      InputError: neither a PLY, nor a fit, nor a run with fits.
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

  def load(self, name: str) -> tuple[Splats, list[Frustum], str]:
    """Splats and cameras of a fit, and why there are none of the latter.

    Raises:
      InputError: the fit is missing or broken.
    """
    if self._workdir is None:
      assert self._file is not None
      return to_splats(ply.read_gaussians(self._file)), [], "a PLY alone has no cameras"
    saved = fit_store.load_fit(self._workdir, name)
    splats = to_splats(saved.gaussians)
    try:
      scene = read_canonical_scene(saved.source, saved.similarity)
    except InputError as error:
      return splats, [], str(error)
    photographs = [contact_sheet.rgba_to_rgb(view) for view in own_rgba(scene)]
    return splats, to_frusta(real_cameras(scene), photographs), ""


class Viewer:
  """The page, and what its controls do."""

  def __init__(self, content: Content, port: int):
    """Starts the server.

    Raises:
      InputError: viser is not installed.
    """
    try:
      import viser
    except ImportError:
      problem = "needs viser; expected pip install 'jaxsplat-mouse[viewer]'"
      raise InputError("view", "", problem) from None
    self._content = content
    self.server = viser.ViserServer(host=HOST, port=port, label="jaxsplat_mouse", verbose=False)
    self.server.scene.set_up_direction("+z")
    self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
    self.server.initial_camera.position = first_position([])
    gui: Any = self.server.gui
    self._scene = gui.add_dropdown("scene", content.names, initial_value=content.names[0])
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
    """Where the page is."""
    return f"http://{HOST}:{self.server.get_port()}"

  def show(self) -> None:
    """Shows the chosen fit."""
    name = self._scene.value
    try:
      splats, frusta, note = self._content.load(name)
    except InputError as error:
      self._note.content = str(error)
      return
    self.server.scene.remove_by_name("/input")
    self.server.scene.add_gaussian_splats(
      "/splats", splats.centers, splats.covariances, splats.colors, splats.opacities
    )
    self._add_frusta("/input", frusta, (18, 128, 108))
    self._show_cameras()
    self.server.initial_camera.position = first_position([one.position for one in frusta])
    lines = [f"**{name}**", f"{len(splats.centers):,} Gaussians, {len(frusta)} photographs", note]
    self._note.content = "\n\n".join(filter(None, lines))

  def _add_orbit(self) -> None:
    cameras = generate_camera_poses(_ORBIT_VIEWS)
    frusta = to_frusta(cameras, [None] * _ORBIT_VIEWS)
    self._add_frusta("/orbit", frusta, (224, 165, 48), scale=0.5)

  def _add_frusta(
    self, folder: str, frusta: Sequence[Frustum], color: tuple[int, int, int], scale: float = 1.0
  ) -> None:
    self.server.scene.add_frame(folder, show_axes=False)
    for i, one in enumerate(frusta):
      self.server.scene.add_camera_frustum(
        f"{folder}/{i:03d}",
        fov=one.fov,
        aspect=one.aspect,
        scale=_FRUSTUM * scale,
        color=color,
        image=one.image,
        wxyz=one.wxyz,
        position=one.position,
      )

  def _show_cameras(self) -> None:
    self.server.scene.add_frame("/input", show_axes=False, visible=self._cameras.value)
    self.server.scene.add_frame("/orbit", show_axes=False, visible=self._orbit.value)
