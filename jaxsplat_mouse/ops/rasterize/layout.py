"""Where each quantity stands: in a splat's packed features, and among a pixel's channels.

A packed splat is a row of F features:

    x y | shape | opacity | r g b | depth | nx ny nz

The shape has 3 features for ellipsoids (the quadratic form xx, xy, yy) and 6 for discs (u, v, w:
see `projection`); depth and normal are there with geometry only. Kernels return the gradient, and
the sums that it is made of, in rows of the same layout.

A pixel has C blended channels and two more that are no sums over splats:

    r g b | depth | nx ny nz | moment | squared moment | transmittance | median depth

The moments are those of the inverse depth; without geometry they, depth and normal are missing.
"""

from __future__ import annotations

import dataclasses

NUM_COLORS = 3


def places(where: slice) -> range:
  """The indices that a slice of a layout covers."""
  return range(where.start, where.stop)


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
  """Indices and slices of a packed splat.

  Attributes:
    flat: discs (True) or ellipsoids.
    geometry: whether depth and normal follow the colour.
  """

  flat: bool
  geometry: bool

  x = 0
  y = 1
  center = slice(0, 2)

  @property
  def shape(self) -> slice:
    """The form xx, xy, yy of an ellipsoid; u0 u1 v0 v1 w0 w1 of a disc."""
    return slice(self.center.stop, 8 if self.flat else 5)

  @property
  def opacity(self) -> int:
    """The opacity; kernels put its logarithm there."""
    return self.shape.stop

  @property
  def color(self) -> slice:
    """r, g, b."""
    return slice(self.opacity + 1, self.opacity + 1 + NUM_COLORS)

  @property
  def depth(self) -> int:
    """Camera z of the centre; with geometry only."""
    return self.color.stop

  @property
  def normal(self) -> slice:
    """World normal; empty without geometry."""
    start = self.depth + 1
    return slice(start, start + 3) if self.geometry else slice(start, start)

  @property
  def response(self) -> slice:
    """Centre and shape: what alpha depends on beside the opacity."""
    return slice(0, self.opacity)

  @property
  def appearance(self) -> slice:
    """Everything behind the opacity: colour and, with geometry, depth and normal."""
    return slice(self.opacity + 1, self.num_features)

  @property
  def constant(self) -> tuple[int, ...]:
    """Colour and normal: the features that are blended as they are, alike at every pixel."""
    return (*places(self.color), *places(self.normal))

  @property
  def num_features(self) -> int:
    """F."""
    return self.normal.stop if self.geometry else self.color.stop


@dataclasses.dataclass(frozen=True)
class ChannelLayout:
  """Indices and slices of a pixel's channels.

  Attributes:
    geometry: whether depth, normal and moments are blended.
    first: channel that stands first in the array at hand; see `behind_color`.
  """

  geometry: bool
  first: int = 0

  @property
  def behind_color(self) -> ChannelLayout:
    """The layout of the second of the two arrays in `base.Channels`, which lacks the colour."""
    return ChannelLayout(self.geometry, NUM_COLORS)

  @property
  def color(self) -> slice:
    """r, g, b."""
    return slice(-self.first, NUM_COLORS - self.first)

  @property
  def depth(self) -> int:
    """Depth of the hit; with geometry only."""
    return NUM_COLORS - self.first

  @property
  def normal(self) -> slice:
    """World normal; empty without geometry."""
    start = self.depth + 1
    return slice(start, start + 3) if self.geometry else slice(start, start)

  @property
  def moment(self) -> int:
    """`Bundle.reference` minus the inverse depth; with geometry only."""
    return self.normal.stop

  @property
  def squared_moment(self) -> int:
    """The square of that; with geometry only."""
    return self.moment + 1

  @property
  def summed(self) -> slice:
    """The blended channels and the transmittance: what `blend.total` adds up."""
    return slice(0, self.median_depth)

  @property
  def constant(self) -> tuple[int, ...]:
    """The channels of `FeatureLayout.constant`."""
    return (*places(self.color), *places(self.normal))

  @property
  def transmittance(self) -> int:
    """What is left of the light behind the last splat."""
    return self.squared_moment + 1 if self.geometry else self.color.stop

  @property
  def median_depth(self) -> int:
    """Depth of the last splat in front of which the transmittance exceeds one half."""
    return self.transmittance + 1

  @property
  def num_blended(self) -> int:
    """C, counted from `first`."""
    return self.transmittance

  @property
  def num_channels(self) -> int:
    """C + 2, counted from `first`."""
    return self.median_depth + 1
