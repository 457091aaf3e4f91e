"""What mattes from a background plate win over the given masks: alpha and colour, exactly known.

    python -m benchmarks.mattes                        every fault of the masks, three animals
    python -m benchmarks.mattes --coats=black --pictures=OUT          pictures over magenta

A built-in mouse walks before a textured background with a soft shadow; photographs and masks go
through h264 (`matte_film.py`). Three ways to RGBA: `mask`, the cleaned mask and the photograph;
`beside`, the cleaned mask and colours from beside the outline (`mattes.foreground_color`);
`plate`, alpha and colour solved against the plate (`plate_mattes.py`), as `prepare` does: colour
alone where the camera's masks turn out right. Scores, within six pixels of the true outline: mean
|alpha error|; mean colour error (levels) within three pixels, where the true alpha is .3 or more;
error over magenta (levels), which sums up both. Then the masks' offset and wobble as found, and
milliseconds per crop.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence

import cv2
import numpy as np

from benchmarks import matte_film
from jaxsplat_mouse.capture import mask_study, mattes, plate_mattes, video
from jaxsplat_mouse.capture.background_plate import BackgroundPlate, PlateBuilder
from jaxsplat_mouse.capture.mask_study import OutlineSample
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.capture.recording_mattes import grown_box, solve_part

_BAND = 6  # pixels around the true outline that are scored
_LOUD = np.array([255, 0, 255], np.float32)
_COATS = {"agouti": 301, "black": 303, "pied": 302}


def _through_codec(path: pathlib.Path, frames: np.ndarray, crf: int) -> np.ndarray:
  """Returns frames (F, H, W) or (F, H, W, 3) as a video file holds them."""
  if not path.is_file():
    matte_film.write_video(path, frames, crf)
  reader = video.open_stream(Stream(video=path), path.stem, grey=frames.ndim == 3)
  try:
    return np.stack([reader.read(i) for i in range(len(frames))])
  finally:
    reader.close()


def make_plate(photos: np.ndarray, masks: np.ndarray) -> BackgroundPlate:
  """Returns the plate of one camera from its photographs (M, H, W, 3) and masks (M, H, W)."""
  builder = PlateBuilder()
  for photo, mask in zip(photos, masks, strict=True):
    builder.add(photo, mattes.clean_mask(mask))
  return builder.build()


def _score(alpha: np.ndarray, color: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Errors (3,) of alpha, colour and the picture over magenta; colours in levels."""
  true = truth[..., 3] / np.float32(255)
  band = np.abs(plate_mattes.outline_distance(truth[..., 3])) <= _BAND
  seen = band & (true >= 0.3) & (np.abs(plate_mattes.outline_distance(truth[..., 3])) <= 3)
  over = lambda a, c: a[..., None] * c + (1 - a[..., None]) * _LOUD
  loud = np.abs(over(alpha, color) - over(true, truth[..., :3].astype(np.float32)))
  off = np.abs(color - truth[..., :3])
  return np.array([np.abs(alpha - true)[band].mean(), off[seen].mean(), loud[band].mean()])


def evaluate(
  film: matte_film.Film, fault: str, folder: pathlib.Path, pictures: pathlib.Path | None
) -> dict[str, np.ndarray]:
  """Scores of every way, means over moments and cameras, and facts about the plate's way.

  Args:
    film: the recording with its truth.
    fault: of `matte_film.MASK_FAULTS`.
    folder: keeps the videos.
    pictures: where pictures over magenta go; None for none.
  """
  masks = matte_film.make_masks(film, fault)
  rows: dict[str, list[np.ndarray]] = {}
  for view in range(film.photos.shape[1]):
    photos = _through_codec(folder / f"photo_{view}.mp4", film.photos[:, view], 16)
    levels = _through_codec(folder / f"{fault}_{view}.mp4".replace(" ", "_"), masks[:, view], 23)
    plate = make_plate(photos, levels)
    pairs = list(zip(photos, levels, strict=True))
    samples = [_sample(photo, mattes.clean_mask(level)) for photo, level in pairs]
    finding = mask_study.compare_masks(plate, samples[::3], "auto")
    for moment, sample in enumerate(samples):
      truth = film.rgba[moment, view][sample.part]
      start = time.perf_counter()
      matte = solve_part(
        mask_study.part_of(plate, sample.part), sample.photo, sample.coverage, np.s_[:, :], finding
      )
      seconds = time.perf_counter() - start
      soft = sample.coverage / np.float32(255)
      beside = mattes.foreground_color(sample.photo, sample.coverage) * 255
      ways = {
        "mask": (soft, sample.photo.astype(np.float32)),
        "beside": (soft, beside),
        "plate": (matte.alpha, matte.color * 255),
      }
      for name, (alpha, color) in ways.items():
        rows.setdefault(name, []).append(_score(alpha, color, truth))
      found = (finding.offset, finding.error, finding.wobble) if finding else (np.nan,) * 3
      rows.setdefault("facts", []).append(np.array([1e3 * seconds, soft.size, *found]))
      if pictures is not None and moment in (2, 9):
        _draw(pictures / f"{fault}_{view}_{moment}.png", ways, truth, sample.photo)
  return {name: np.mean(found, 0) for name, found in rows.items()}


def _sample(photo: np.ndarray, coverage: np.ndarray) -> OutlineSample:
  box = mattes.silhouette_box(coverage)
  assert box is not None
  part = grown_box(box, coverage.shape)  # type: ignore[arg-type]
  return OutlineSample(photo[part].copy(), coverage[part].copy(), part)


def _draw(path: pathlib.Path, ways: dict, truth: np.ndarray, photo: np.ndarray) -> None:
  """Writes photograph, truth and all ways over magenta, side by side."""
  path.parent.mkdir(parents=True, exist_ok=True)
  cells = [photo.astype(np.float32)]
  shown = [(truth[..., 3] / np.float32(255), truth[..., :3].astype(np.float32)), *ways.values()]
  cells += [a[..., None] * c + (1 - a[..., None]) * _LOUD for a, c in shown]
  sheet = np.concatenate(cells, 1).astype(np.uint8)
  large = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
  cv2.imwrite(str(path), large[..., ::-1])


def _main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--coats", nargs="*", default=list(_COATS), choices=list(_COATS))
  parser.add_argument("--faults", nargs="*", default=list(matte_film.MASK_FAULTS))
  parser.add_argument("--moments", type=int, default=20)
  parser.add_argument("--width", type=int, default=576)
  parser.add_argument("--views", type=int, default=3)
  parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("matte_films"))
  parser.add_argument("--pictures", type=pathlib.Path)
  given = parser.parse_args(argv)
  print(
    "| animal, masks | alpha error mask → plate | colour mask · beside → plate"
    " | over magenta mask · beside → plate | offset, wobble | ms, px |"
  )
  print("| --- | --- | --- | --- | --- | --- |")
  for coat in given.coats:
    film = matte_film.make_film(
      _COATS[coat], coat, moments=given.moments, width=given.width, views=given.views,
      cache=given.cache,
    )  # fmt: skip
    for fault in given.faults:
      folder = given.cache / f"{coat}_{given.moments}_{given.width}"
      pictures = given.pictures / coat if given.pictures else None
      s = evaluate(film, fault, folder, pictures)
      m, b, p, facts = (s[name] for name in ("mask", "beside", "plate", "facts"))
      print(
        f"| {coat}, {fault} | {m[0]:.4f} → {p[0]:.4f}"
        f" | {m[1]:.1f} · {b[1]:.1f} → {p[1]:.1f}"
        f" | {m[2]:.1f} · {b[2]:.1f} → {p[2]:.1f}"
        f" | {facts[2]:+.2f} ± {facts[3]:.2f}, {facts[4]:.2f} | {facts[0]:.0f}, {facts[1]:.0f} |",
        flush=True,
      )


if __name__ == "__main__":
  _main()
