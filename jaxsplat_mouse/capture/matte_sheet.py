"""Writes `mattes.png`, on which a person sees what mattes made of the masks, camera by camera."""

from __future__ import annotations

import io
import pathlib

import numpy as np

from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.mattes import silhouette_box
from jaxsplat_mouse.capture.recording_mattes import RecordingMattes, grown_box
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report.contact_sheet import SheetRow, draw_sheet

MATTES_PNG = "mattes.png"
_CELL = 260
_LOUD = np.array(
  [255, 0, 255], np.float32
)  # no animal has this colour: what is left of masks shows
_LABELS = ("photograph", "background\nplate", "mask", "matte")


def write_matte_sheet(
  folder: pathlib.Path, title: str, cropper: Cropper, frames: np.ndarray, mattes: RecordingMattes
) -> pathlib.Path | None:
  """Writes photograph, plate, mask and matte of one moment.

  Args:
    folder: where the picture is written.
    title: the recording's name.
    cropper: reads the pictures; its frame reader has no mattes yet.
    frames: (V,) frame of each camera.
    mattes: the plates and what was found about the masks.

  Returns:
    The path of the picture; None where no camera has a matte at this moment.

  Raises:
    OSError: the disk is full or not writable.
  """
  reader = cropper.frame_reader

  def draw(view: int, frame: int) -> list[np.ndarray] | None:
    if not mattes.matted(view):
      return None
    photo = reader.read_photo(view, frame)
    given = mattes.segment(view, photo) if mattes.from_plate else reader.read_coverage(view, frame)
    box = silhouette_box(given)
    if box is None:
      return None
    part = grown_box(box, given.shape)  # type: ignore[arg-type]
    matte = mattes.solve(view, photo, given)
    plate = np.clip(mattes.plates[view].color, 0, 255).astype(np.uint8)
    before = _over_loud(given[part] / np.float32(255), photo[part].astype(np.float32))
    after = _over_loud(matte.alpha[part], matte.color[part] * 255)
    return [photo[part], plate[part], before, after]

  drawn, _ = cropper.map_cameras(frames, draw)
  columns = {view: cells for view, cells in drawn.items() if cells is not None}
  if not columns:
    return None
  rows = [SheetRow(label, [c[i] for c in columns.values()]) for i, label in enumerate(_LABELS)]
  captions = [_caption(mattes, view) for view in columns]
  notes = "the matte should show the whole animal, and nothing of the background around it"
  buffer = io.BytesIO()
  draw_sheet(f"{title}: mattes", notes, rows, captions, cell=_CELL).save(buffer, "PNG")
  atomic.write_bytes(folder / MATTES_PNG, buffer.getvalue())
  return folder / MATTES_PNG


def _over_loud(alpha: np.ndarray, color: np.ndarray) -> np.ndarray:
  """Composites (h, w) alpha and (h, w, 3) levels over a loud colour, uint8."""
  return (alpha[..., None] * color + (1 - alpha[..., None]) * _LOUD + 0.5).astype(np.uint8)


def _caption(mattes: RecordingMattes, view: int) -> str:
  finding = mattes.findings[view]
  found = "" if mattes.from_plate else f"   masks {finding.offset:+.1f} px"
  return mattes.names[view] + found
