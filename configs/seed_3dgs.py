"""The baseline of every comparison: the plain recipe, ellipsoidal Gaussians.

    python -m jaxsplat_mouse.main --config=configs/seed_3dgs.py

Random initialisation, L1 + SSIM, one fixed learning rate per field: no hull, no silhouette loss, no
regularisers, no relocation, white background, full resolution throughout.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
  config = default.get_config()
  set_plain_recipe(config)
  config.fit.model = "3dgs"
  config.fit.iterations = 1000
  config.fit.depth_weight = 0.0
  config.fit.normal_weight = 0.0
  return default.apply_variant(config, variant)


def set_plain_recipe(config: ConfigDict) -> None:
  fit = config.fit
  fit.initialization = "random"
  fit.sh_degree = 0
  fit.lr_position = 0.001
  fit.lr_position_final = 1.0
  fit.lr_feature = 0.01
  fit.lr_bands = 0.05
  fit.lr_opacity = 0.05
  fit.lr_scaling = 0.005
  fit.lr_rotation = 0.001
  fit.ssim_weight = 0.2
  fit.mask_weight = 0.0
  fit.opacity_weight = 0.0
  fit.scale_weight = 0.0
  fit.opacity_decay = 1.0
  fit.noise = 0.0
  fit.relocate_every = 0
  fit.geometry_from = 0.0
  fit.dropout = 0.0
  fit.average_from = 1.0
  fit.min_scale = 0.0
  fit.low_pass = 0.3
  fit.max_scale = 1e3
  fit.max_anisotropy = 1e3
  fit.random_background = False
  fit.views_per_step = 0
  fit.resolutions = (1,)
  fit.stages = ()
