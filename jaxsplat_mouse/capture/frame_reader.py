"""Reads photographs and silhouettes of all cameras by frame, from videos or image files."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from jaxsplat_mouse.capture import animal_masks, video
from jaxsplat_mouse.capture.animal_masks import AnimalPartition
from jaxsplat_mouse.capture.mattes import SOLID, SPECK_SHARE, border_share, clean_mask, grow_mask
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.recording_mattes import RecordingMattes
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images

_MAX_BORDER = 0.5  # a mask that covers more of the picture's border is taken for background


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFrame:
  """One picture of one camera, still distorted.

  Attributes:
    photo: (H, W, 3) uint8, straight colour.
    coverage: (H, W) uint8, the animal's silhouette.
    has_background: whether `photo` shows the background, as it does with a separate mask; its
      outline pixels then mix animal and background.
    color: (H, W, 3) float32 in [0, 1], the animal's own colour, of a solved matte; else None.
    hidden: (H, W) bool, pixels of other animals, behind which this one may be; None for none.
  """

  photo: np.ndarray
  coverage: np.ndarray
  has_background: bool
  color: np.ndarray | None = None
  hidden: np.ndarray | None = None


class FrameReader:
  """Reads the pictures of all cameras; each camera may be used by one thread at a time.

  Use it as a context manager: it opens files on first use and closes them at the end of the block.
  """

  def __init__(self, capture: Capture, specks: float = SPECK_SHARE, grow: int = 0):
    """Takes the recording without opening its files.

    Args:
      capture: the recording.
      specks: see `mattes.clean_mask`.
      grow: pixels, see `mattes.grow_mask`.

    Raises:
      InputError: silhouettes shall be widened, but the pictures carry their own alpha and have no
        colour outside of it.
    """
    if grow > 0 and capture.masks is None:
      problem = f"{grow}: the pictures have no colour outside of their own silhouettes"
      raise InputError("--grow", "", f"{problem}; expected 0 or less without masks")
    self._capture, self._specks, self._grow = capture, specks, grow
    self._readers: dict[tuple[str, int], video.StreamReader] = {}
    self._sizes: dict[int, tuple[int, int]] = {}
    self._partitions: dict[int, tuple[int, AnimalPartition]] = {}  # the last one of each camera
    self.mattes: RecordingMattes | None = None  # replace masks once they are set

  def __enter__(self) -> FrameReader:
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Closes the files."""
    for reader in self._readers.values():
      reader.close()
    self._readers.clear()

  def require_packages(self) -> None:
    """Checks that the packages which this capture needs are installed.

    Raises:
      InputError: OpenCV or PyAV is missing.
    """
    try:
      import cv2  # noqa: F401
    except ImportError:
      problem = "preparing pictures takes OpenCV: pip install 'jaxsplat-mouse[video]'"
      raise InputError(self._capture.path, "", problem) from None
    streams = (*self._capture.pictures, *(self._capture.masks or ()))
    if any(stream.video is not None for stream in streams):
      video.require_pyav(self._capture.path)

  def image_size(self, view: int, number: int = 0) -> tuple[int, int]:
    """Width and height of a camera's photographs, from the calibration or from frame `number`.

    Raises:
      InputError: the frame cannot be read.
    """
    if view not in self._sizes:
      width, height = (int(side) for side in self._capture.rig.sizes[view])
      if 0 in (width, height):
        height, width = self._read("pictures", view, number).shape[:2]
      self._sizes[view] = width, height
    return self._sizes[view]

  def open_camera(self, view: int) -> None:
    """Opens a camera's files.

    Raises:
      InputError: one of them is missing or not a video.
    """
    for kind in ("pictures", "masks") if self._capture.masks else ("pictures",):
      self._reader(kind, view)

  def read_coverage(self, view: int, number: int, animal: int | None = None) -> np.ndarray:
    """Reads a silhouette (H, W) uint8, without the photograph where there is a separate mask.

    Args:
      view: number of the camera.
      number: of the frame.
      animal: number of one of several animals; None for all of them together.

    Raises:
      InputError: the picture cannot be read, its size is not the calibration's, or it shall show
        all animals together and the mask of one is empty.
    """
    if self._capture.animals:
      return self._read_animal_coverage(view, number, animal)
    if self._from_plate:
      return self._segment(view, number, self.read_photo(view, number))
    if self._capture.masks is None:
      return self.read_frame(view, number).coverage
    levels = self._read("masks", view, number)
    self._check_size("masks", view, number, levels)
    found = clean_mask(levels, self._specks)
    self._check_mask(view, number, levels, found)
    return self._move_outline("masks", view, number, found)

  def read_silhouette(self, view: int, number: int) -> np.ndarray:
    """Reads a silhouette (H, W) uint8 as exactly as it is known: a matte's, where one is solved.

    Raises:
      InputError: as `read_coverage`.
    """
    if self.mattes is not None and self.mattes.matted(view):
      return self.read_frame(view, number).coverage
    return self.read_coverage(view, number)

  def read_frame(self, view: int, number: int, animal: int | None = None) -> RawFrame:
    """Reads a photograph and its silhouette.

    Args:
      view: number of the camera.
      number: of the frame.
      animal: number of one of several animals; None for all of them together.

    Raises:
      InputError: as `read_coverage`.
    """
    if animal is not None:
      return self._pick_animal(view, number, animal)
    photo = self._read("pictures", view, number)
    self._check_size("pictures", view, number, photo)
    if self._from_plate:
      return self._solve_matte(view, photo, self._segment(view, number, photo))
    if self._capture.masks is not None:
      return self._solve_matte(view, photo, self.read_coverage(view, number))
    if photo.shape[2] == 3:
      self._check_white(view, number, photo)
      photo = images.rgba_from_white(photo)
    coverage = self._move_outline("pictures", view, number, photo[..., 3])
    return RawFrame(photo=photo[..., :3], coverage=coverage, has_background=False)

  def read_photo(self, view: int, number: int) -> np.ndarray:
    """Reads a photograph (H, W, 3) uint8, without a silhouette.

    Raises:
      InputError: it cannot be read, or its size is not the calibration's.
    """
    photo = self._read("pictures", view, number)
    self._check_size("pictures", view, number, photo)
    return photo[..., :3]

  def animals_in(self, view: int, number: int) -> frozenset[int]:
    """Returns the numbers of the animals that have a silhouette in a picture.

    Raises:
      InputError: the masks cannot be read.
    """
    return self._partition(view, number).present

  def _read_animal_coverage(self, view: int, number: int, animal: int | None) -> np.ndarray:
    """Reads the silhouette (H, W) uint8 of one animal or, for None, of all."""
    found = self._partition(view, number)
    # Without one of the animals, their common silhouette would seem to contradict other cameras.
    needed = range(len(self._capture.animals)) if animal is None else [animal]
    self._require_animals(view, number, needed, found)
    coverage = self._move_outline("masks", view, number, found.coverage)
    return coverage if animal is None else np.where(found.owner == animal, coverage, np.uint8(0))

  def _pick_animal(self, view: int, number: int, animal: int) -> RawFrame:
    """Returns the frame of one animal: the share of all silhouettes that belongs to it."""
    found = self._partition(view, number)
    self._require_animals(view, number, [animal], found)
    together = self._move_outline("masks", view, number, found.coverage)
    raw = self._solve_matte(view, self.read_photo(view, number), together)
    own = found.owner == animal
    hidden = ~own & (raw.coverage > 0)
    coverage = np.where(own, raw.coverage, np.uint8(0))
    return dataclasses.replace(raw, coverage=coverage, hidden=hidden if hidden.any() else None)

  def _partition(self, view: int, number: int) -> AnimalPartition:
    """Divides a picture among the animals."""
    last = self._partitions.get(view)
    if last is None or last[0] != number:
      last = number, animal_masks.divide_picture(self._read_animals(view, number), self._specks)
      self._partitions[view] = last
    return last[1]

  def _read_animals(self, view: int, number: int) -> np.ndarray:
    """Reads the masks (A, H, W) uint8 of all animals."""
    animals = self._capture.animals
    kinds = ["masks"] if animals[0].label else [f"masks {animal.name}" for animal in animals]
    pictures = [self._read(kind, view, number) for kind in kinds]
    for kind, picture in zip(kinds, pictures, strict=True):
      self._check_size(kind, view, number, picture)
    if not animals[0].label:
      return np.stack(pictures)
    field = f"{self._capture.rig.names[view]} mask frame {number}"
    animal_masks.check_labels(self._picture_file("masks", view, number), field, pictures[0])
    return animal_masks.label_levels(pictures[0], [animal.label for animal in animals])

  def _require_animals(
    self, view: int, number: int, needed: Iterable[int], found: AnimalPartition
  ) -> None:
    """Refuses a picture in which an animal has no silhouette."""
    for animal in needed:
      if animal not in found.present:
        field = f"{self._capture.rig.names[view]} mask frame {number}"
        name = self._capture.animals[animal].name
        raise InputError(self._capture.path, field, f"animal {name}: empty silhouette")

  @property
  def _from_plate(self) -> bool:
    return self.mattes is not None and self.mattes.from_plate

  def _segment(self, view: int, number: int, photo: np.ndarray) -> np.ndarray:
    """Returns a silhouette from the camera's plate; refuses an empty one."""
    assert self.mattes is not None
    found = self.mattes.segment(view, photo[..., :3])
    if not found.any():
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = "empty silhouette: nothing stands out from the background plate"
      raise InputError(self._picture_file("pictures", view, number), field, problem)
    return found

  def _solve_matte(self, view: int, photo: np.ndarray, coverage: np.ndarray) -> RawFrame:
    """Returns a frame with background, with the alpha and colour of a matte where there is one."""
    photo = photo[..., :3]
    if self.mattes is None or view not in self.mattes.findings:
      return RawFrame(photo=photo, coverage=coverage, has_background=True)
    matte = self.mattes.solve(view, photo, coverage)
    solved = (matte.alpha * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return RawFrame(photo=photo, coverage=solved, has_background=True, color=matte.color)

  def _move_outline(self, kind: str, view: int, number: int, coverage: np.ndarray) -> np.ndarray:
    """Applies `grow` to a silhouette; refuses one of which nothing is left."""
    grown = grow_mask(coverage, self._grow)
    if self._grow < 0 and coverage.any() and not grown.any():
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = f"--grow={self._grow} leaves nothing of the silhouette; expected fewer pixels"
      raise InputError(self._picture_file(kind, view, number), field, problem)
    return grown

  def _read(self, kind: str, view: int, number: int) -> np.ndarray:
    return self._reader(kind, view).read(number)

  def _reader(self, kind: str, view: int) -> video.StreamReader:
    key = kind, view
    if key not in self._readers:
      masks = kind != "pictures"
      camera = self._capture.rig.names[view] + (kind.replace("masks", " mask") if masks else "")
      labels = masks and bool(self._capture.animals) and self._capture.animals[0].label > 0
      stream = self._stream(kind, view)
      self._readers[key] = video.open_stream(stream, camera, grey=masks, labels=labels)
    return self._readers[key]

  def _stream(self, kind: str, view: int) -> Stream:
    streams = self._capture.masks if kind == "masks" else self._capture.pictures
    for animal in self._capture.animals:
      if kind == f"masks {animal.name}":
        streams = animal.masks
    assert streams is not None
    return streams[view]

  def _check_size(self, kind: str, view: int, number: int, image: np.ndarray) -> None:
    """Refuses a picture whose size is not the one that the intrinsics are for."""
    size = self.image_size(view, number)
    if image.shape[1::-1] != size:
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = f"{image.shape[1]} x {image.shape[0]} pixels; expected {size[0]} x {size[1]}"
      problem += ", the size that the intrinsics are for"
      raise InputError(self._picture_file(kind, view, number), field, problem)

  def _check_mask(self, view: int, number: int, levels: np.ndarray, coverage: np.ndarray) -> None:
    """Refuses a mask that shows no animal, or everything but the animal."""
    field = f"{self._capture.rig.names[view]} mask frame {number}"
    if not coverage.any():
      problem = f"empty silhouette: the brightest level is {levels.max(initial=0)}"
      problem += f"; expected an animal at {SOLID} to 255"
    elif border_share(coverage) > _MAX_BORDER:
      problem = "the mask covers the picture's border; expected the animal white on black"
    else:
      return
    raise InputError(self._picture_file("masks", view, number), field, problem)

  def _picture_file(self, kind: str, view: int, number: int) -> pathlib.Path:
    """The file that holds a picture."""
    stream = self._stream(kind, view)
    return stream.video or (stream.images[number] if stream.images else self._capture.path)

  def _check_white(self, view: int, number: int, photo: np.ndarray) -> None:
    """Refuses a photograph from which no silhouette can be taken."""
    if images.white_border_share(photo) < 0.5:
      field = f"{self._capture.rig.names[view]} frame {number}"
      problem = "no mask, no alpha and no white background; give masks with --masks=DIR"
      raise InputError(self._capture.path, field, problem)
