"""Frames by number: exact for every file, errors name the camera, memory does not grow."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxsplat_mouse.capture import video
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from tests.io.file_fixtures import write_huge_header, write_video

av = pytest.importorskip("av")
SIDE = 64


def picture(number: int, side: int = SIDE) -> np.ndarray:
  """Draws a frame that shows its number: ten bits as bright and dark blocks."""
  image = np.full((side, side), 20, np.uint8)
  for bit in range(10):
    if number >> bit & 1:
      y, x = divmod(bit, 4)
      image[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = 230
  return image


def number_of(image: np.ndarray) -> int:
  grey = image if image.ndim == 2 else image.mean(-1)
  blocks = grey[:48].reshape(3, 16, 4, 16)[:, 4:12, :, 4:12].mean((1, 3)).ravel()
  return sum(1 << bit for bit in range(10) if blocks[bit] > 128)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """600 frames with B frames and a key frame every 50."""
  path = tmp_path_factory.mktemp("video") / "0.mp4"
  return write_video(path, [picture(i) for i in range(600)], gop=50)


def read(path: pathlib.Path, numbers: list[int], grey: bool = True) -> list[int]:
  reader = video.open_stream(Stream(video=path), "Camera1", grey=grey)
  try:
    return [number_of(reader.read(n)) for n in numbers]
  finally:
    reader.close()


@pytest.mark.parametrize(
  "numbers",
  [
    [0, 1, 2, 3],
    [0, 7, 14, 49, 50, 51],
    [599],
    [400, 401, 449, 450],  # by way of a key frame
    [10, 10, 11],
    [300, 20, 580, 0],
  ],
)
def test_frames_are_found_by_number(movie: pathlib.Path, numbers: list[int]) -> None:
  assert read(movie, numbers) == numbers


def test_a_jump_decodes_no_more_than_a_group(
  movie: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  reader = video.VideoReader(movie, "Camera1", grey=True)
  jumps: list[int] = []
  jump = reader._jump
  monkeypatch.setattr(reader, "_jump", lambda *a: jumps.append(a[0]) or jump(*a))
  assert number_of(reader.read(520)) == 520 and jumps == [520]
  assert reader._next == 521


def test_a_seek_that_arrives_elsewhere_is_undone(
  movie: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Simulates a key frame at which decoding cannot start: the file is read from its start."""
  reader = video.VideoReader(movie, "Camera1", grey=True)
  times = reader._scan()
  reader._keys = times[[590]]  # wrong on purpose: the seek ends behind the frame
  lie = lambda n: reader._jump(n, int(times[590]), int(times[n]))
  monkeypatch.setattr(reader, "_approach", lie)
  assert number_of(reader.read(420)) == 420


def test_times_that_are_uneven_do_not_matter(tmp_path: pathlib.Path) -> None:
  """A recording that dropped frames: frames are counted, not computed from the clock."""
  times = np.cumsum([0, *([1, 3, 1, 2, 7] * 70)]).tolist()[:330]
  path = write_video(tmp_path / "0.mp4", [picture(i) for i in range(330)], times=times, gop=40)
  assert read(path, [0, 5, 6, 310, 329]) == [0, 5, 6, 310, 329]
  assert video.count_frames(Stream(video=path)) == 330


def test_grey_levels_are_of_full_range(tmp_path: pathlib.Path) -> None:
  image = np.zeros((SIDE, SIDE), np.uint8)
  image[16:48, 16:48] = 255
  path = write_video(tmp_path / "0.mp4", [image] * 3)
  grey = video.open_stream(Stream(video=path), "Camera1", grey=True).read(1)
  assert grey.shape == (SIDE, SIDE) and grey[30, 30] > 250 and grey[3, 3] < 5
  assert video.open_stream(Stream(video=path), "Camera1").read(1).shape == (SIDE, SIDE, 3)


def test_a_short_video_is_reported_with_its_camera(movie: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r"Camera1 frame 600: missing; the video has 600 frames"):
    read(movie, [600])
  with pytest.raises(InputError, match="Camera1 frame -1: the recording has no frame"):
    read(movie, [-1])


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100, None])
def test_a_file_that_is_no_video_is_reported(tmp_path: pathlib.Path, content: bytes | None) -> None:
  path = tmp_path / "0.mp4"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=r"0\.mp4: Camera1: (no such|not a readable) video"):
    read(path, [0])


def test_a_truncated_video_gives_what_it_has(tmp_path: pathlib.Path) -> None:
  path = write_video(tmp_path / "0.mkv", [picture(i) for i in range(200)], gop=20)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  reader = video.open_stream(Stream(video=path), "Camera1", grey=True)
  assert number_of(reader.read(40)) == 40
  with pytest.raises(InputError, match="Camera1 frame 190"):
    reader.read(190)


def test_frames_behind_a_damaged_one_keep_their_numbers(tmp_path: pathlib.Path) -> None:
  """Bytes of one packet are overwritten: frames of other groups come out as before."""
  path = write_video(tmp_path / "0.mp4", [picture(i) for i in range(120)], gop=20, b_frames=0)
  with av.open(str(path)) as container:
    packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
  data = bytearray(path.read_bytes())
  for place, size in packets[45:48]:
    data[place : place + size] = b"\x00" * size
  path.write_bytes(bytes(data))
  reader = video.open_stream(Stream(video=path), "Camera1", grey=True)
  assert [number_of(reader.read(n)) for n in (0, 20, 43)] == [0, 20, 43]
  with pytest.raises(InputError, match="Camera1 frame 46: damaged"):
    reader.read(46)
  assert [number_of(reader.read(n)) for n in (61, 99, 119)] == [61, 99, 119]


def test_images_are_read_by_number(tmp_path: pathlib.Path) -> None:
  grey, rgba = np.full((4, 6), 77, np.uint8), np.zeros((4, 6, 4), np.uint8)
  rgba[..., 3] = 200
  for name, image in (("0.png", grey), ("1.png", rgba), ("2.png", rgba[..., :3])):
    (tmp_path / name).write_bytes(images.encode_png(image))
  files = (*(tmp_path / f"{i}.png" for i in range(3)), write_huge_header(tmp_path / "3.png"))
  stream = Stream(images=files)
  masks, photos = (video.open_stream(stream, "Camera1", grey=g) for g in (True, False))
  assert masks.read(0)[0, 0] == 77 and masks.read(1)[0, 0] == 200 and masks.read(2)[0, 0] == 0
  assert [photos.read(i).shape[2] for i in range(3)] == [3, 4, 3]
  with pytest.raises(InputError, match=r"3\.png: Camera1 frame 3: image too large"):
    photos.read(3)
  with pytest.raises(InputError, match="Camera1 frame 4: missing; the camera has 4 images"):
    photos.read(4)


_PEAKS = """
import pathlib, resource, sys
from jaxsplat_mouse.capture import video
from jaxsplat_mouse.capture.raw_capture import Stream
reader = video.open_stream(Stream(video=pathlib.Path(sys.argv[1])), "Camera1")
for number in range(int(sys.argv[2])):
  reader.read(number)
  if number in (200, int(sys.argv[2]) - 1):
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path: pathlib.Path) -> None:
  path = write_video(tmp_path / "0.mp4", [picture(i % 1000) for i in range(2000)], gop=50)
  told = subprocess.run(
    [sys.executable, "-c", _PEAKS, str(path), "2000"], capture_output=True, text=True, check=True
  )
  early, late = (int(line) for line in told.stdout.split())
  per_megabyte = 1 << 10 if sys.platform == "linux" else 1 << 20
  assert (late - early) / per_megabyte < 3  # 1,800 frames of 12 KiB would be 22 MiB


def test_a_recording_in_parts_is_one_stream(tmp_path: pathlib.Path) -> None:
  files = [
    write_video(tmp_path / f"{first}.mp4", [picture(i) for i in range(first, last)])
    for first, last in ((0, 20), (20, 35), (35, 50))
  ]
  stream = Stream(video=files[0], parts=((20, files[1]), (35, files[2])))
  reader = video.open_stream(stream, "Camera1", grey=True)
  wanted = [0, 19, 20, 34, 35, 49, 3]
  assert [number_of(reader.read(n)) for n in wanted] == wanted
  assert video.count_frames(stream) == 50
  with pytest.raises(InputError, match=r"35\.mp4: Camera1 frame 15: missing"):
    reader.read(50)
  reader.close()
