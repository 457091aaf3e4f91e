"""Films of a walking built-in mouse before a textured background, with exact alpha and colour.

Used by `mattes.py`. The cameras are those of the real rig (`procedural_mouse.real_rig`), moved back
so that the animal has room to walk. The background stands still; a soft shadow walks with the
animal and every frame has its own exposure. Photographs and masks are written as h264 video.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras

_BACK = 1.7  # times the rig's own distance
_REACH = 0.5  # world units that the animal walks to either side
_SHADOW = 0.45  # share of the light that the darkest shadow takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
  """A recording with its truth.

  Attributes:
    cameras: (V,) true cameras.
    rgba: (M, V, H, W, 4) uint8, exact straight colour and alpha.
    photos: (M, V, H, W, 3) uint8, before any codec.
    plates: (V, H, W, 3) uint8, the empty scene.
  """

  cameras: Cameras
  rgba: np.ndarray
  photos: np.ndarray
  plates: np.ndarray


def film_cameras(width: int, views: int) -> Cameras:
  """Returns the first cameras of the real rig, moved back.

  Args:
    width: of the images, pixels; a multiple of 9.
    views: number of cameras, at most 6.
  """
  rig = dannce_cameras(width)
  poses = np.array(rig.world_to_camera)[:views]
  poses[:, 2, 3] *= _BACK
  return dataclasses.replace(
    rig, world_to_camera=poses, intrinsics=np.asarray(rig.intrinsics)[:views]
  )


def _shoot(job: tuple[int, str, int, int, int]) -> np.ndarray:
  """Returns the exact pictures (V, H, W, 4) uint8 of one moment."""
  seed, coat, width, views, moment = job
  mouse = walking(make_mouse(seed, "walk", coat), 0.37 * moment)
  x, y, z = mouse.translation
  angle = 2.39996 * moment  # the golden angle: places spread evenly over the arena
  reach = _REACH * math.sqrt((moment + 0.5) % 8 / 8)
  place = (x + reach * math.cos(angle), y + reach * math.sin(angle), z)
  mouse = dataclasses.replace(mouse, yaw=mouse.yaw + 1.7 * moment, translation=place)
  rgba = render_truth(mouse, film_cameras(width, views)).rgba
  return np.round(255 * rgba).astype(np.uint8)


def make_film(
  seed: int, coat: str, *, moments: int, width: int, views: int, cache: pathlib.Path
) -> Film:
  """Renders a film, or reads its exact pictures from the cache.

  Args:
    seed: of the animal, its background and its light.
    coat: of the animal.
    moments: number of moments.
    width: of the images, pixels; a multiple of 9.
    views: number of cameras.
    cache: folder that keeps the exact pictures.
  """
  path = cache / f"matte_{seed}_{coat}_{moments}_{width}_{views}.npz"
  if not path.is_file():
    cache.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, coat, width, views, moment) for moment in range(moments)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
      np.savez_compressed(path, rgba=np.stack(list(pool.map(_shoot, jobs))))
  rgba = np.load(path)["rgba"]
  height, width = rgba.shape[2:4]
  plates = np.stack([make_background(height, width, 10 * seed + v) for v in range(views)])
  rng = np.random.default_rng([seed, 5])
  photos = np.zeros((*rgba.shape[:4], 3), np.uint8)
  for moment, pictures in enumerate(rgba):
    for view, picture in enumerate(pictures):
      photos[moment, view] = compose(picture, plates[view], gain=rng.uniform(0.93, 1.07))
  return Film(cameras=film_cameras(width, views), rgba=rgba, photos=photos, plates=plates)


def make_background(height: int, width: int, seed: int) -> np.ndarray:
  """Returns a textured background (H, W, 3) uint8: patches, boards, bedding of several sizes."""
  rng = np.random.default_rng(seed)
  image = np.full((height, width, 3), rng.uniform(0.45, 0.65), np.float32)
  image *= rng.uniform(0.85, 1.15, 3).astype(np.float32)
  for size, strength in ((90, 0.10), (24, 0.05), (6, 0.05), (1.5, 0.05)):
    noise = rng.normal(size=(height, width, 3)).astype(np.float32)
    noise = 0.7 * noise[..., :1] + 0.3 * noise
    noise = cv2.GaussianBlur(noise, (0, 0), size)
    image += strength * noise / noise.std()
  for x in np.sort(rng.uniform(0, width, 7)).astype(int):
    image[:, x : x + 2] *= 0.7
  return (np.clip(image, 0.05, 0.97) * 255).astype(np.uint8)


def compose(picture: np.ndarray, plate: np.ndarray, gain: float = 1.0) -> np.ndarray:
  """Returns a photograph: the animal before the plate, with its soft shadow.

  Args:
    picture: (H, W, 4) uint8, straight.
    plate: (H, W, 3) uint8.
    gain: exposure.
  """
  alpha = picture[..., 3] / np.float32(255)
  sigma = 0.012 * alpha.shape[1]
  shadow = cv2.GaussianBlur(
    np.roll(alpha, (round(sigma), round(1.2 * sigma)), (0, 1)), (0, 0), sigma
  )
  ground = plate * (1 - _SHADOW * shadow[..., None])
  image = picture[..., :3] * alpha[..., None] + ground * (1 - alpha[..., None])
  return np.clip(gain * image + 0.5, 0, 255).astype(np.uint8)


def write_video(path: pathlib.Path, frames: np.ndarray, crf: int) -> None:
  """Writes frames (F, H, W) or (F, H, W, 3) uint8 as h264 video."""
  import av

  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"crf": str(crf)})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    for frame in frames:
      layout = "gray" if frame.ndim == 2 else "rgb24"
      for packet in stream.encode(av.VideoFrame.from_ndarray(frame, layout)):
        container.mux(packet)
    for packet in stream.encode():
      container.mux(packet)


def move_outline(
  alpha: np.ndarray, offset: float | np.ndarray, *, hard: bool = False
) -> np.ndarray:
  """Returns a mask (H, W) uint8 whose outline lies `offset` pixels outside that of `alpha`.

  Args:
    alpha: (H, W) uint8, exact coverage.
    offset: pixels; one number, or (H, W).
    hard: without intermediate levels.
  """
  inside = (alpha > 127).astype(np.uint8)
  far, deep = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (1 - inside, inside))
  # Distances count from pixel centres, which lie half a pixel from the outline on either side.
  signed = np.where(inside > 0, 0.5 - deep, far - 0.5)
  soft = np.clip(0.5 + offset - signed, 0, 1)
  return ((soft > 0.5) * 255 if hard else np.round(soft * 255)).astype(np.uint8)


def _exact(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  del rng
  return alpha


def _wide(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  del rng
  return move_outline(alpha, 2)


def _narrow(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  del rng
  return move_outline(alpha, -1)


def _wobble(alpha: np.ndarray, rng: np.random.Generator, wide: float = 0.0) -> np.ndarray:
  noise = cv2.GaussianBlur(rng.normal(size=alpha.shape).astype(np.float32), (0, 0), 12)
  return move_outline(alpha, wide + noise / noise.std(), hard=True)


def _wide_wobble(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  return _wobble(alpha, rng, 1.0)


def bite(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns a mask with two holes, a bite out of its outline, and a piece of shadow."""
  mask = alpha.copy()
  radius = max(3, round(0.008 * alpha.shape[1]))
  deep = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 5)
  for places, level in (
    (deep > 2 * radius, 0),
    (deep > 2 * radius, 0),
    ((deep > 0) & (deep < 2), 0),
    ((deep > 0) & (deep < 2), 255),
  ):
    rows, columns = np.nonzero(places)
    if len(rows):
      at = rng.integers(len(rows))
      cv2.circle(mask, (int(columns[at]), int(rows[at])), radius, level, -1, cv2.LINE_AA)
  return mask


MASK_FAULTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
  "exact": _exact,
  "wide 2": _wide,
  "narrow 1": _narrow,
  "wobble": _wobble,
  "wide 1, wobble": _wide_wobble,
  "bitten": bite,
}


def make_masks(film: Film, fault: str, seed: int = 0) -> np.ndarray:
  """Returns the masks (M, V, H, W) uint8 of a film with a fault of `MASK_FAULTS`."""
  rng = np.random.default_rng([seed, 7])
  masks = film.rgba[..., 3].copy()
  for mask in masks.reshape(-1, *masks.shape[2:]):
    mask[...] = MASK_FAULTS[fault](mask, rng)
  return masks
