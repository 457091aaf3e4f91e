"""The default: flat Gaussians (discs) that lie on the surface.

python -m jaxsplat_mouse.main --config=configs/2dgs.py
python -m jaxsplat_mouse.main --config=configs/2dgs.py --config.data.input=SCENE --workdir=DIR
python -m jaxsplat_mouse.main --config=configs/2dgs.py:preview        a quick look
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
  config = default.get_config()
  config.fit.model = "2dgs"
  config.fit.iterations = 1500
  return default.apply_variant(config, variant)
