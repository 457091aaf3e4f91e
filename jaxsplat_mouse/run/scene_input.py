"""Reads a scene, moves it into the canonical frame, carves its hull and places first Gaussians."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any

from jaxsplat_mouse import canonical
from jaxsplat_mouse.dataset import sources
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.run import inexact_scenes
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.scene import Scene, Similarity, to_uint8, transform_scene
from jaxsplat_mouse.visual_hull.build import carve_hull, hull_extent
from jaxsplat_mouse.visual_hull.hull import HullConfig

_carve = Program(carve_hull, static=(1,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneInput:
  """A scene on the host: as it was read and, after `prepare_scene`, ready to be fitted.

  Attributes:
    source: where the scene comes from.
    digest: hash of its files.
    scene: the views, uncropped; in the input's frame until `prepare_scene` moves them.
    similarity: input frame -> frame of `scene`.
    gaussians: (N,) to start from; None until `prepare_scene` places them.
    seed: seed of all random numbers of the fit, 32 bits.
    warnings: suspicious properties of input that can be used all the same.
    agreement: how far its views agree, see `inexact_scenes.Agreement.to_json`; None if unknown.
    seconds: wall time so far.
  """

  source: Source
  digest: str
  scene: Scene
  similarity: Similarity = dataclasses.field(default_factory=Similarity)
  gaussians: Gaussians | None = None
  seed: int = 0
  warnings: tuple[str, ...] = ()
  agreement: dict[str, Any] | None = None
  seconds: float = 0.0

  @property
  def first_gaussians(self) -> Gaussians:
    """The Gaussians (N,) of a prepared scene; raises ValueError for another."""
    if self.gaussians is None:
      raise ValueError(f"{self.source}: not prepared yet; call prepare_scene first")
    return self.gaussians


def read_scene_input(source: Source) -> SceneInput:
  """Reads a scene from its files; no device is used.

  Raises:
    InputError: the scene cannot be read.
  """
  started = time.monotonic()
  digest = sources.digest(source)
  scene, warnings = sources.read_source(source)
  return SceneInput(
    source=source,
    digest=digest,
    scene=to_uint8(scene),
    warnings=warnings,
    seconds=time.monotonic() - started,
  )


def check_views(read: SceneInput, config: FitConfig) -> SceneInput:
  """Measures how far the views of a scene agree, on the host; see `inexact_scenes.treat_scene`.

  Args:
    read: the scene in the input's frame.
    config: from when on a scene is inexact.

  Returns:
    the same scene if it is exact, otherwise marked as inexact and with refined poses.
  """
  started = time.monotonic()
  scene, agreement = inexact_scenes.treat_scene(read.scene, config.inexact_from)
  found = agreement.to_json()
  noted = (inexact_scenes.describe_agreement(found),) if agreement.inexact else ()
  return dataclasses.replace(
    read,
    scene=scene,
    agreement=found,
    warnings=(*read.warnings, *noted),
    seconds=read.seconds + time.monotonic() - started,
  )


def prepare_scene(read: SceneInput, settings: Settings, scale: float | None = None) -> SceneInput:
  """Moves a scene into the canonical frame and carves its hull, on the default device.

  An accelerator carves a hull in a hundredth of the time that the host takes, unless a chunk of a
  fit is queued before it: carving reads results back between its steps, and each such step waits
  for everything that was queued earlier.

  Args:
    read: the scene in the input's frame.
    settings: of the run.
    scale: canonical units per input unit of the recording; None if the scene has its own.

  Returns:
    the scene in the canonical frame, with its first Gaussians and its seed.

  Raises:
    InputError: no solid has these silhouettes.
  """
  started = time.monotonic()
  source = read.source
  seed = scene_seed(settings.seed, source.name)
  try:
    scene, similarity = canonical.canonicalize(
      read.scene,
      normalize=settings.data.normalize,
      radius=settings.data.radius,
      up=settings.data.up,
      scale=scale,
    )
    scene, gaussians = start_fit(scene, settings.fit, settings.hull, seed)
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
  return dataclasses.replace(
    read,
    scene=scene,
    similarity=similarity,
    gaussians=gaussians,
    seed=seed,
    seconds=read.seconds + time.monotonic() - started,
  )


def start_fit(
  scene: Scene, config: FitConfig, hull_config: HullConfig, seed: int
) -> tuple[Scene, Gaussians]:
  """Calls `fit.start.start_on_hull` with the carving program that is stored on disk.

  Args:
    scene: V views in the canonical frame, not cropped.
    config: the recipe.
    hull_config: how to carve.
    seed: of the random numbers, 32 bits.

  Returns:
    the scene with the pixels that other views contradict, and Gaussians (N,), both as NumPy.

  Raises:
    ValueError: the cameras see no common volume, or no solid has these silhouettes.
  """
  return start_on_hull(scene, config, hull_config, seed, _carve)


def compile_carving(compiler: BackgroundCompiler, scene: Scene, settings: Settings) -> None:
  """Compiles in the background the program that carves the hull of a scene.

  Args:
    compiler: compiles it.
    scene: a scene; its shapes count.
    settings: of the run.
  """
  compiler.start(_carve, scene, settings.hull)


def read_canonical_scene(
  source: Source, similarity: Similarity, agreement: dict[str, Any] | None
) -> Scene:
  """Reads the views of a scene as an earlier fit took them, in its canonical frame.

  Args:
    source: of the scene.
    similarity: input frame -> canonical frame.
    agreement: what `check_views` found then; None if it was not asked.

  Raises:
    InputError: the scene cannot be read.
  """
  scene = inexact_scenes.apply_agreement(to_uint8(sources.read_source(source)[0]), agreement)
  return transform_scene(scene, similarity)


def scene_seed(seed: int, name: str) -> int:
  """Returns a 32-bit seed that depends only on the run's seed and the name of the scene."""
  return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def measure_radius(source: Source, config: HullConfig) -> float:
  """Measures the radius of a scene's hull in input units.

  Raises:
    InputError: the scene cannot be read, or no solid has its silhouettes.
  """
  scene = read_scene_input(source).scene
  try:
    return hull_extent(scene, config)[1]
  except ValueError as error:
    raise InputError(str(source), "", str(error)) from None
