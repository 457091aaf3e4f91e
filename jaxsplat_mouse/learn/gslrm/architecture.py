"""The shape of a GS-LRM: all that its weights depend on."""

from __future__ import annotations

import dataclasses

DTYPES = ("bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """What a network is made of.

  Attributes:
    image_size: width and height, pixels, of the photographs that it is trained on.
    patch: side of the square of pixels that is one token.
    stride: side of the cell of pixels that becomes one Gaussian; it divides `patch`.
    width: numbers that a token is.
    depth: blocks of attention and perceptron.
    head_width: numbers of an attention head; it divides `width`.
    registers: learnt tokens that stand in front of the patches.
    max_tokens: patches of all photographs together that are kept, covered ones first; 0 keeps all.
    max_splats: Gaussians that are rendered, those of covered cells; 0 renders all.
    facelift: the network as FaceLift trains it: no alpha among the inputs, no norm of queries and
      keys, a Gaussian for every register, and FaceLift's formulas of position and size.
    dtype: type in which matrices are multiplied; sums, norms and geometry are float32.
    remat: compute every block again in the backward pass rather than store it.
  """

  image_size: int = 256
  patch: int = 8
  stride: int = 1
  width: int = 384
  depth: int = 8
  head_width: int = 64
  registers: int = 8
  max_tokens: int = 832
  max_splats: int = 28_672
  facelift: bool = False
  dtype: str = "bfloat16"
  remat: bool = False

  def __post_init__(self) -> None:
    """Refuses shapes that do not fit each other."""
    for name, whole, part in (
      ("image_size", self.image_size, self.patch),
      ("patch", self.patch, self.stride),
      ("width", self.width, self.head_width),
    ):
      if part < 1 or whole < 1 or whole % part:
        raise ValueError(f"architecture.{name}: {whole}, expected a multiple of {part}, above 0")
    if self.depth < 1:
      raise ValueError(f"architecture.depth: {self.depth}, expected at least 1")
    for name in ("registers", "max_tokens", "max_splats"):
      if getattr(self, name) < 0:
        raise ValueError(f"architecture.{name}: {getattr(self, name)}, expected at least 0")
    if self.facelift and self.stride != 1:
      raise ValueError(f"architecture.stride: {self.stride}, expected 1 with facelift")
    if self.dtype not in DTYPES:
      raise ValueError(f"architecture.dtype: {self.dtype!r}, expected one of {', '.join(DTYPES)}")

  @property
  def channels(self) -> int:
    """Numbers per pixel: colour, direction, the ray's point nearest the origin, and alpha."""
    return 9 if self.facelift else 10

  @property
  def cells(self) -> int:
    """Cells along each side of a patch."""
    return self.patch // self.stride

  @property
  def outputs(self) -> int:
    """Numbers that the head gives for one Gaussian."""
    return 14 if self.facelift else 12


SIZES: dict[str, Architecture] = {
  # For tests on a CPU.
  "tiny": Architecture(
    image_size=64,
    stride=2,
    width=64,
    depth=2,
    head_width=32,
    max_tokens=144,
    max_splats=0,
    dtype="float32",
  ),
  "small": Architecture(),
  "medium": Architecture(image_size=512, width=512, max_tokens=2048, max_splats=0),
  # The shape of FaceLift's network with the formulas of the smaller ones.
  "base": Architecture(
    image_size=512, width=1024, depth=24, max_tokens=2048, max_splats=0, remat=True
  ),
  # FaceLift's network, for its weights.
  "facelift": Architecture(
    image_size=512,
    width=1024,
    depth=24,
    registers=2,
    max_tokens=0,
    max_splats=0,
    facelift=True,
    remat=True,
  ),
}
