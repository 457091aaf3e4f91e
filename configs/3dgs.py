"""Ellipsoidal Gaussians.

python -m jaxsplat_mouse.main --config=configs/3dgs.py
python -m jaxsplat_mouse.main --config=configs/3dgs.py --config.data.input=SCENE --workdir=DIR
python -m jaxsplat_mouse.main --config=configs/3dgs.py:preview        a quick look
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
  config = default.get_config()
  config.fit.model = "3dgs"
  config.fit.iterations = 1500
  config.fit.opacity_weight = 0.15
  config.fit.lr_scaling = 0.0075
  config.fit.depth_weight = 0.0
  config.fit.normal_weight = 0.1
  config.fit.novel_weight = 0.02
  return default.apply_variant(config, variant)
