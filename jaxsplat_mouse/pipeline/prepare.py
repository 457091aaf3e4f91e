"""From a source to what a fit starts from: views in the canonical frame and first Gaussians."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time

import jax
import numpy as np

from jaxsplat_mouse import canonical, fit, sources
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.pipeline import device
from jaxsplat_mouse.pipeline.ahead import Ahead
from jaxsplat_mouse.pipeline.settings import Settings
from jaxsplat_mouse.scene import Scene, Similarity, transform_scene
from jaxsplat_mouse.sources import Source
from jaxsplat_mouse.visual_hull import HullConfig, build_hull, carve_hull, hull_extent


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


def prepare(
  source: Source, settings: Settings, scale: float | None = None, ahead: Ahead | None = None
) -> Prepared:
  """Reads a scene, moves it into the canonical frame and carves its hull.

  Args:
    source: the scene.
    settings: of the run.
    scale: canonical units per input unit, where a recording shares one.
    ahead: compiles the hull's program while the scene is being measured.

  Raises:
    InputError: the scene cannot be read, or its silhouettes admit no solid.
  """
  started = time.monotonic()
  digest = sources.digest(source)
  scene, warnings = sources.read_source(source)
  seed = scene_seed(settings.seed, source.name)
  program = ("hull", np.shape(scene.alphas))
  if ahead and settings.fit.initialization != "random":
    ahead.start(program, functools.partial(_compile_hull, scene, settings.hull))
  try:
    scene, similarity = canonical.canonicalize(
      scene,
      normalize=settings.data.normalize,
      radius=settings.data.radius,
      up=settings.data.up,
      scale=scale,
    )
    if ahead:
      ahead.wait(program)
    scene, gaussians = start_fit(scene, settings, seed)
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
  return Prepared(
    source=source,
    digest=digest,
    scene=scene,
    similarity=similarity,
    gaussians=gaussians,
    seed=seed,
    warnings=warnings,
    seconds=time.monotonic() - started,
  )


def _compile_hull(scene: Scene, config: HullConfig) -> None:
  with device.on_host():  # as the worker calls it
    carve_hull.lower(scene, config).compile()


def read_canonical(source: Source, similarity: Similarity) -> Scene:
  """The views of a scene that was fitted before, in the canonical frame of then.

  Raises:
    InputError: the scene cannot be read.
  """
  return transform_scene(sources.read_source(source)[0], similarity)


def start_fit(scene: Scene, settings: Settings, seed: int) -> tuple[Scene, Gaussians]:
  """What the fit of one canonical scene starts from, as NumPy.

  Returns:
    the scene with what its hull tells of pixels and of other views, and Gaussians (N,).

  Raises:
    ValueError: the silhouettes admit no solid.
  """
  key = jax.random.key(np.uint32(seed))
  if settings.fit.initialization == "random":
    return scene, jax.tree.map(np.asarray, fit.random_gaussians(settings.fit, key))
  hull = build_hull(scene, settings.hull)
  scene = fit.know_hull(scene, hull, settings.fit)
  return jax.tree.map(np.asarray, (scene, _from_hull(hull, settings.fit, key)))


_from_hull = functools.partial(jax.jit, static_argnames="config")(fit.from_hull)


def scene_seed(seed: int, name: str) -> int:
  """A 32-bit seed that depends on the run's and the scene's name alone, not on its neighbours."""
  return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def measure_radius(source: Source, config: HullConfig) -> float:
  """Radius of a scene's hull in input units.

  Raises:
    InputError: the scene cannot be read, or has no hull.
  """
  scene, _ = sources.read_source(source)
  try:
    return hull_extent(scene, config)[1]
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
