"""The settings of a training, and those that fit the sizes of `learn.gslrm.architecture`."""

from __future__ import annotations

import dataclasses

from jaxsplat_mouse.learn.gslrm.architecture import SIZES, Architecture
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights
from jaxsplat_mouse.learn.training.training_data import parse_datasets


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecipe:
  """What is learnt from.

  Attributes:
    datasets: `LIST@WEIGHT,LIST@WEIGHT`: lists of scene folders as `dataset/train.txt` and the
      weights with which they are drawn; `mice:N` and `solids:N` are N built-in scenes.
    held_out: likewise, scored and never learnt from; empty for none.
    inputs: views of a sample that the network sees.
    views: views of a sample in which it is judged, its inputs among them.
    augments: turn, scale and brighten samples at random.
  """

  datasets: str = "mice:320"
  held_out: str = "mice:16"
  inputs: int = 4
  views: int = 8
  augments: bool = True

  def __post_init__(self) -> None:
    """Refuses lists that cannot be read and numbers of views that make no sample."""
    parse_datasets("data.datasets", self.datasets)
    parse_datasets("data.held_out", self.held_out or "mice:1")
    if not 1 <= self.inputs <= self.views:
      raise ValueError(f"data.inputs: {self.inputs}, expected 1 to data.views, {self.views}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
  """How it is learnt: AdamW, warmed up, then a cosine.

  Attributes:
    steps: of the whole training.
    batch: samples of a step, on all devices together.
    rate: learning rate after the warm-up.
    final_rate: at the last step, as a share of `rate`.
    warmup: steps in which the rate rises.
    decay: weight decay of matrices.
    clip: largest norm of the gradient; longer ones are shortened.
    skip_above: norm of the gradient above which a step is not taken.
    averaging: decay of the running mean of the parameters, which is the result.
    alpha_weight: weight of coverage against silhouette; colour has 1.
    ssim_weight: weight of 1 - SSIM.
    ssim_from: share of the steps after which it counts: from the start it leads to collapse.
  """

  steps: int = 20_000
  batch: int = 32
  rate: float = 6e-4
  final_rate: float = 0.02
  warmup: int = 200
  decay: float = 0.05
  clip: float = 1.0
  skip_above: float = 20.0
  averaging: float = 0.999
  alpha_weight: float = 1.0
  ssim_weight: float = 0.2
  ssim_from: float = 0.15

  def __post_init__(self) -> None:
    """Refuses numbers with which no training is possible."""
    for name in ("steps", "batch"):
      if getattr(self, name) < 1:
        raise ValueError(f"optimizer.{name}: {getattr(self, name)}, expected at least 1")
    if not 0.0 <= self.averaging < 1.0:
      raise ValueError(f"optimizer.averaging: {self.averaging}, expected 0 to below 1")
    for name in ("rate", "clip", "skip_above"):
      if not getattr(self, name) > 0:
        raise ValueError(f"optimizer.{name}: {getattr(self, name)}, expected above 0")

  def loss_weights(self, step: int) -> LossWeights:
    """Returns the weights of the losses at a step."""
    late = step >= self.ssim_from * self.steps
    return LossWeights(alpha=self.alpha_weight, ssim=self.ssim_weight if late else 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavingRecipe:
  """When a training looks up from its steps.

  Attributes:
    every: steps between two lines of the record; there it can stop, too.
    seconds: least time between two checkpoints.
    evaluate_every: steps between two scores of the held-out scenes.
    tensorboard: write curves for TensorBoard (extra `tensorboard`).
  """

  every: int = 50
  seconds: float = 60.0
  evaluate_every: int = 1000
  tensorboard: bool = False

  def __post_init__(self) -> None:
    """Refuses intervals that never end."""
    for name in ("every", "evaluate_every"):
      if getattr(self, name) < 1:
        raise ValueError(f"saving.{name}: {getattr(self, name)}, expected at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
  """All settings of a training.

  Attributes:
    seed: of the first parameters and of every sample.
    weights: a folder of weights to start from; empty starts anew.
    architecture: the network.
    data: what it learns from.
    optimizer: how.
    saving: when it looks up.
  """

  seed: int = 0
  weights: str = ""
  architecture: Architecture = dataclasses.field(default_factory=Architecture)
  data: DataRecipe = dataclasses.field(default_factory=DataRecipe)
  optimizer: OptimizerRecipe = dataclasses.field(default_factory=OptimizerRecipe)
  saving: SavingRecipe = dataclasses.field(default_factory=SavingRecipe)

  def __post_init__(self) -> None:
    """Refuses a seed that keys of random numbers do not hold."""
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed: {self.seed}, expected 0 to 2^32 - 1")


def training_recipe(size: str) -> TrainingRecipe:
  """Returns the recipe of a size, one of `SIZES`.

  Raises:
    ValueError: no such size.
  """
  if size not in SIZES:
    raise ValueError(f"variant {size!r}: expected one of {', '.join(SIZES)}")
  recipe = TrainingRecipe(architecture=SIZES[size])
  if size == "small":
    return recipe
  changes: dict[str, OptimizerRecipe] = {
    "tiny": OptimizerRecipe(steps=200, batch=2, rate=1e-3, warmup=10, averaging=0.95),
    "medium": OptimizerRecipe(batch=16, rate=4e-4),
    "base": OptimizerRecipe(batch=8, rate=2e-4, warmup=2000, steps=80_000),
    # Its weights are given: short, and slow.
    "facelift": OptimizerRecipe(batch=4, rate=1e-4, warmup=500),
  }
  recipe = dataclasses.replace(recipe, optimizer=changes[size])
  if size == "tiny":
    data = DataRecipe(datasets="mice:4", held_out="mice:1")
    saving = SavingRecipe(every=20, evaluate_every=100)
    recipe = dataclasses.replace(recipe, data=data, saving=saving)
  return recipe
