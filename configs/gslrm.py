"""GS-LRM: a network that turns four photographs into Gaussians in one pass.

    python -m jaxsplat_mouse.train --config=gslrm:small --workdir=DIR
    python -m jaxsplat_mouse.train --config=gslrm:small --workdir=DIR \
        --config.data.datasets=DATASET/train.txt@0.3,OBJECTS/train.txt@0.7
    python -m jaxsplat_mouse.train --config=gslrm:tiny --workdir=DIR          a quick look on a CPU

Variants are the sizes of `jaxsplat_mouse.learn.gslrm.architecture`: tiny, small, medium, base,
facelift. `jaxsplat_mouse.learn.training.training_recipe` explains every key.
"""

import dataclasses

from ml_collections import ConfigDict

from jaxsplat_mouse.learn.training.training_recipe import training_recipe


def get_config(variant: str = "small") -> ConfigDict:
  return ConfigDict(dataclasses.asdict(training_recipe(variant)))
