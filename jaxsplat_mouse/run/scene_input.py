"""From a source to what a fit starts from: views in the canonical frame and first Gaussians."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time

import jax
import numpy as np

from jaxsplat_mouse import canonical
from jaxsplat_mouse.dataset import sources
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.start import from_hull, know_hull, random_gaussians
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.scene import Scene, Similarity, to_levels, transform_scene
from jaxsplat_mouse.visual_hull.build import build_hull, carve_hull, hull_extent
from jaxsplat_mouse.visual_hull.hull import HullConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
  """A scene on the host as it was read; attributes as in `Prepared`, in the input's frame."""

  source: Source
  digest: str
  scene: Scene
  warnings: tuple[str, ...]
  seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
  """A scene on the host, ready to be fitted.

  Attributes:
    source: where it came from.
    digest: hash of what was read.
    scene: the views in the canonical frame, uncropped.
    similarity: input frame -> canonical frame.
    gaussians: (N,) to start from.
    seed: of every random number of its fit.
    warnings: what is usable but suspicious.
    seconds: wall time.
  """

  source: Source
  digest: str
  scene: Scene
  similarity: Similarity
  gaussians: Gaussians
  seed: int
  warnings: tuple[str, ...]
  seconds: float


def load(source: Source) -> Loaded:
  """Reads a scene; takes no device.

  Raises:
    InputError: the scene cannot be read.
  """
  started = time.monotonic()
  digest = sources.digest(source)
  scene, warnings = sources.read_source(source)
  scene = to_levels(scene)
  seconds = time.monotonic() - started
  return Loaded(source=source, digest=digest, scene=scene, warnings=warnings, seconds=seconds)


def prepare(loaded: Loaded, settings: Settings, scale: float | None = None) -> Prepared:
  """Moves a scene into the canonical frame and carves its hull, on the default device.

  On an accelerator a hull takes a hundredth of the time, if it need not wait behind a fit's chunk:
  its steps depend on its data, and each waits for what the device was given before.

  Args:
    loaded: the scene.
    settings: of the run.
    scale: canonical units per input unit, where a recording shares one.

  Raises:
    InputError: the silhouettes admit no solid.
  """
  started = time.monotonic()
  source = loaded.source
  seed = scene_seed(settings.seed, source.name)
  try:
    scene, similarity = canonical.canonicalize(
      loaded.scene,
      normalize=settings.data.normalize,
      radius=settings.data.radius,
      up=settings.data.up,
      scale=scale,
    )
    scene, gaussians = start_fit(scene, settings, seed)
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
  return Prepared(
    source=source,
    digest=loaded.digest,
    scene=scene,
    similarity=similarity,
    gaussians=gaussians,
    seed=seed,
    warnings=loaded.warnings,
    seconds=loaded.seconds + time.monotonic() - started,
  )


def compile_ahead(compiler: BackgroundCompiler, scene: Scene, settings: Settings) -> None:
  """Has the program compiled that carves such a scene's hull."""
  if settings.fit.initialization != "random":
    compiler.start(_carve, scene, settings.hull)


def read_canonical(source: Source, similarity: Similarity) -> Scene:
  """The views of a scene that was fitted before, in the canonical frame of then.

  Raises:
    InputError: the scene cannot be read.
  """
  return transform_scene(to_levels(sources.read_source(source)[0]), similarity)


def start_fit(scene: Scene, settings: Settings, seed: int) -> tuple[Scene, Gaussians]:
  """What the fit of one canonical scene starts from, as NumPy.

  Returns:
    the scene with what its hull tells of pixels and of other views, and Gaussians (N,).

  Raises:
    ValueError: the silhouettes admit no solid.
  """
  key = jax.random.key(np.uint32(seed))
  if settings.fit.initialization == "random":
    return scene, jax.tree.map(np.asarray, random_gaussians(settings.fit, key))
  hull = build_hull(scene, settings.hull, _carve)
  scene = know_hull(scene, hull, settings.fit)
  return jax.tree.map(np.asarray, (scene, _from_hull(hull, settings.fit, key)))


_carve = Program(carve_hull, static=(1,))
_from_hull = functools.partial(jax.jit, static_argnames="config")(from_hull)


def scene_seed(seed: int, name: str) -> int:
  """A 32-bit seed that depends on the run's and the scene's name alone, not on its neighbours."""
  return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def measure_radius(source: Source, config: HullConfig) -> float:
  """Radius of a scene's hull in input units.

  Raises:
    InputError: the scene cannot be read, or has no hull.
  """
  scene = load(source).scene
  try:
    return hull_extent(scene, config)[1]
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
