"""The baseline of every comparison: the plain recipe, flat Gaussians.

    python -m jaxsplat_mouse.main --config=configs/seed_2dgs.py

As `seed_3dgs.py`, with discs, depth distortion and normal consistency.
"""

from ml_collections import ConfigDict

from configs import default
from configs.seed_3dgs import set_plain_recipe


def get_config(variant: str = "") -> ConfigDict:
  config = default.get_config()
  set_plain_recipe(config)
  config.fit.model = "2dgs"
  config.fit.iterations = 1500
  config.fit.depth_weight = 0.1
  config.fit.normal_weight = 0.05
  config.fit.low_pass = 0.5
  return default.apply_variant(config, variant)
