"""Writes a film as the raw recording that a lab would hand over, faults included.

Pictures get the lens of the real rig (and, as video, its skew), a textured background with a soft
shadow (`matte_film.py`) and noise. Without video they are PNG files in `transforms` format, masks
too; with video they are h264 in `sdannce` format, photographs and masks.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from benchmarks import matte_film, recording_faults
from benchmarks.recording_faults import BUMPED_CAMERA, Fault
from benchmarks.recording_films import LATE_CAMERA, Film
from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.pose_conventions import OPENGL_AXES
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Rig, distort

MM = 99.0 / 0.82  # millimetres per world unit: `real_rig`'s mouse
_LENS = np.array([-0.16, 0.9, -0.0011, -0.0038, -2.7])  # k1 k2 p1 p2 k3, of the order of a real one
_SKEW = -1.5 / 1152  # of the width
_NOISE = 1.5  # levels of a photograph
_PHOTO_CRF, _MASK_CRF = 16, 23  # of h264
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_NOWHERE = -1e4  # coordinate of a pixel that no lens brings into the frame


def true_rig(film: Film, video: bool) -> Rig:
  """Returns the cameras that took a recording of a film, in millimetres.

  Args:
    film: its cameras are the pinholes behind the lenses.
    video: whether there is a skew; the format of images has none.
  """
  views = len(film.cameras)
  poses = np.array(film.cameras.world_to_camera, np.float64)
  poses[:, :3, 3] *= MM
  matrices = np.tile(np.eye(3), (views, 1, 1))
  fx, fy, cx, cy = np.asarray(film.cameras.intrinsics, np.float64).T
  matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = fx, fy, cx, cy
  matrices[:, 0, 1] = _SKEW * film.cameras.width if video else 0.0
  u, _, vt = np.linalg.svd(poses[:, :3, :3])  # the film's are float32
  poses[:, :3, :3] = u @ vt
  return Rig(
    names=tuple(f"Camera{i + 1}" for i in range(views)),
    matrices=matrices,
    world_to_camera=poses,
    distortion=np.outer(1 - 0.02 * np.arange(views), _LENS),
    sizes=np.tile([film.cameras.width, film.cameras.height], (views, 1)),
    unit="mm",
  )


def moment_frames(film: Film) -> np.ndarray:
  """Returns the number of the frame (M,) that shows each moment of a film."""
  return np.arange(len(film.rgba)) * (1 if film.sides is None else 3)


def write_recording(
  folder: pathlib.Path, film: Film, fault: Fault, seed: int, *, video: bool
) -> Rig:
  """Writes a recording with a fault.

  A film with frames beside its moments begins and ends with a moment, so that moments spread evenly
  over the recording have their neighbours in time beside them.

  Args:
    folder: gets the files.
    film: what the cameras saw.
    fault: what is wrong with the recording.
    seed: of what is drawn.
    video: h264 instead of PNG.

  Returns:
    The cameras as the recording describes them.
  """
  rig = true_rig(film, video)
  given = recording_faults.spoil_rig(rig, fault, seed)
  folder.mkdir(parents=True, exist_ok=True)
  order = recording_faults.stream_order(fault, len(rig))
  for view, shown in enumerate(order):
    frames = _frames(film, rig, fault, shown, seed)
    if video:
      _write_videos(folder, rig.names[view], frames)
    else:
      _write_images(folder, rig.names[view], frames)
  count = 3 * len(film.rgba) - 2 if film.sides is not None else len(film.rgba)
  if video:
    _write_sdannce(folder, given)
  else:
    _write_transforms(folder, given, count)
  return given


def _frames(
  film: Film, rig: Rig, fault: Fault, view: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields photograph (H, W, 3) and mask (H, W), uint8, of each frame of a camera."""
  rng = np.random.default_rng([seed, 2, view])
  height, width = film.rgba.shape[2:4]
  plate = matte_film.make_background(height, width, 10 * seed + view)
  gain = recording_faults.camera_gains(fault, len(rig), seed)[view]
  straight = _lookup(film, rig, view, np.eye(3))
  pictures = _stream(film, view, late=fault.late and view == LATE_CAMERA)
  for number, picture in enumerate(pictures):
    maps, ground = straight, plate
    if _is_bumped(fault, view, number, len(pictures)):
      turn = recording_faults.bump_of(fault, seed)
      maps, ground = _lookup(film, rig, view, turn), _turned_plate(plate, rig, view, turn)
    seen = _through_lens(picture, *maps)
    photo = matte_film.compose(seen, ground, gain).astype(np.float32)
    photo += rng.normal(scale=_NOISE, size=photo.shape).astype(np.float32)
    mask = recording_faults.spoil_mask(seen[..., 3], fault, rng)
    yield np.clip(photo + 0.5, 0, 255).astype(np.uint8), mask


def exact_alpha(
  film: Film, rig: Rig, fault: Fault, seed: int, view: int, number: int
) -> np.ndarray:
  """Returns the exact alpha (H, W) uint8 of what a camera's files show in a frame.

  Args:
    film: what the cameras saw.
    rig: the cameras that took the recording.
    fault: of the recording.
    seed: of what is drawn.
    view: number of the camera whose files they are.
    number: of the frame.
  """
  shown = recording_faults.stream_order(fault, len(rig))[view]
  pictures = _stream(film, shown, late=fault.late and shown == LATE_CAMERA)
  turned = _is_bumped(fault, shown, number, len(pictures))
  turn = recording_faults.bump_of(fault, seed) if turned else np.eye(3)
  return _through_lens(pictures[number], *_lookup(film, rig, shown, turn))[..., 3]


def _is_bumped(fault: Fault, view: int, number: int, count: int) -> bool:
  """Whether a camera has been turned before a frame of `count`."""
  return bool(fault.bump) and view == BUMPED_CAMERA and 2 * number >= count


def _stream(film: Film, view: int, *, late: bool) -> list[np.ndarray]:
  """Returns the pictures (H, W, 4) of a camera, frame by frame."""
  if film.sides is None:
    if late:
      raise ValueError("a recording out of step takes a film with frames beside its moments")
    return list(film.rgba[:, view])
  rows = [film.sides[0, :, view], film.rgba[:, view], film.sides[1, :, view]]
  if late:
    assert film.earlier is not None
    rows = [film.earlier, *rows[:2]]
  return [row[moment] for moment in range(len(film.rgba)) for row in rows][1:-1]


def _rays(rig: Rig, view: int, turn: np.ndarray) -> np.ndarray:
  """Returns x / z and y / z (H, W, 2) of a camera's pixels in the axes before it was turned."""
  width, height = rig.sizes[view]
  x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
  bent = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(rig.matrices[view]).T
  flat = lens.undistort(bent[..., :2], rig.distortion[view])
  rays = np.concatenate([flat, np.ones_like(flat[..., :1])], -1) @ turn
  return rays[..., :2] / rays[..., 2:]


def _lookup(film: Film, rig: Rig, view: int, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns where a camera's pixels lie in the film: OpenCV's columns and rows (H, W)."""
  fx, fy, cx, cy = np.asarray(film.cameras.intrinsics, np.float64)[view]
  found = _rays(rig, view, turn) * [fx, fy] + [cx - 0.5, cy - 0.5]
  found = np.where(np.isfinite(found), found, _NOWHERE).astype(np.float32)
  return found[..., 0].copy(), found[..., 1].copy()


def _through_lens(picture: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Returns a film's picture (H, W, 4) uint8, straight, as the lens shows it."""
  alpha = picture[..., 3:] / np.float32(255)
  held = np.concatenate([picture[..., :3] * alpha, picture[..., 3:].astype(np.float32)], -1)
  found = np.asarray(cv2.remap(held, columns, rows, cv2.INTER_CUBIC))
  cover = np.clip(found[..., 3:], 0, 255)
  color = np.where(cover >= 1, found[..., :3] * 255 / np.maximum(cover, 1), 0)
  return np.concatenate([np.clip(color, 0, 255), cover], -1).round().astype(np.uint8)


def _turned_plate(plate: np.ndarray, rig: Rig, view: int, turn: np.ndarray) -> np.ndarray:
  """Returns the background (H, W, 3) uint8 of a camera after it was turned."""
  bent = distort(_rays(rig, view, turn), rig.distortion[view])
  pixels = bent @ rig.matrices[view][:2, :2].T + rig.matrices[view][:2, 2] - 0.5
  pixels = np.where(np.isfinite(pixels), pixels, 0).astype(np.float32)
  x, y = pixels[..., 0].copy(), pixels[..., 1].copy()
  return np.asarray(cv2.remap(plate, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101))


def _image_path(kind: str, camera: str, number: int) -> str:
  # The reader names cameras after the files of their first frame.
  return f"{kind}/{number:04d}/{camera}.png"


def _write_images(
  folder: pathlib.Path, camera: str, frames: Iterator[tuple[np.ndarray, np.ndarray]]
) -> None:
  for number, (photo, mask) in enumerate(frames):
    for kind, image in (("photos", photo[..., ::-1]), ("masks", mask)):
      path = folder / _image_path(kind, camera, number)
      path.parent.mkdir(parents=True, exist_ok=True)
      if not cv2.imwrite(str(path), image, _PNG):
        raise OSError(f"{path}: cannot be written")


def _write_transforms(folder: pathlib.Path, rig: Rig, count: int) -> None:
  frames = []
  for number in range(count):
    for view, camera in enumerate(rig.names):
      k, (k1, k2, p1, p2, k3) = rig.matrices[view], rig.distortion[view].tolist()
      pose = np.linalg.inv(rig.world_to_camera[view]) @ OPENGL_AXES
      frames.append(
        {
          "file_path": _image_path("photos", camera, number),
          "mask_path": _image_path("masks", camera, number),
          "time": number,
          "transform_matrix": pose.tolist(),
          **{"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]},
          **{"k1": k1, "k2": k2, "p1": p1, "p2": p2, "k3": k3},
        }
      )
  (folder / "transforms.json").write_text(json.dumps({"frames": frames}))


def _write_videos(
  folder: pathlib.Path, camera: str, frames: Iterator[tuple[np.ndarray, np.ndarray]]
) -> None:
  photos, masks = (np.stack(images) for images in zip(*frames, strict=True))
  matte_film.write_video(folder / "videos" / camera / "0.mp4", photos, _PHOTO_CRF)
  matte_film.write_video(folder / "masks" / camera / "0.mp4", masks, _MASK_CRF)


def _write_sdannce(folder: pathlib.Path, rig: Rig) -> None:
  """Writes MATLAB's cameras, for row vectors and pixels that count from the first one's centre."""
  from scipy import io

  (folder / "calibration").mkdir(exist_ok=True)
  for view in range(len(rig)):
    matrix = rig.matrices[view].copy()
    matrix[:2, 2] -= OPENCV_FIRST_PIXEL
    k1, k2, p1, p2, k3 = rig.distortion[view]
    fields = {
      "K": matrix.T,
      "r": rig.world_to_camera[view, :3, :3].T,
      "t": rig.world_to_camera[view, :3, 3][None],
      "RDistort": np.array([[k1, k2, k3]]),
      "TDistort": np.array([[p1, p2]]),
    }
    io.savemat(folder / "calibration" / f"hires_cam{view + 1}_params.mat", fields)


def given_rig(rig: Rig, poses: np.ndarray, focal: np.ndarray) -> Rig:
  """Returns a rig with other poses (V, 4, 4) and its focal lengths times factors (V,)."""
  matrices = rig.matrices.copy()
  matrices[:, :2, :2] *= focal[:, None, None]
  return dataclasses.replace(rig, world_to_camera=poses, matrices=matrices)
