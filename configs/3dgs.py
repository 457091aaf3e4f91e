"""Ellipsoidal Gaussians.

python -m jaxsplat_mouse.main --config=configs/3dgs.py
python -m jaxsplat_mouse.main --config=configs/3dgs.py --config.data.input=SCENE --workdir=DIR
python -m jaxsplat_mouse.main --config=configs/3dgs.py:preview        a quick look
python -m jaxsplat_mouse.main --config=configs/3dgs.py:photographs    inexact cameras and masks
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
  return default.make_config("3dgs", variant)
