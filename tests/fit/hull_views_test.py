"""Hull silhouettes in views without a photograph, and the sparing of what no photograph shows."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.hull_views import hull_loss
from jaxsplat_mouse.fit.loop import _press
from jaxsplat_mouse.fit.start import start_scene
from jaxsplat_mouse.procedural_mouse.scenes import make_scene
from jaxsplat_mouse.visual_hull.hull import HullConfig

_CONFIG = FitConfig(
  model="3dgs",
  num_gaussians=300,
  iterations=20,
  relocate_every=0,
  resolutions=(1,),
  stages=(),
  hull_inside=0.5,
  hull_outside=0.5,
  hull_views=4,
  hull_size=48,
)


@pytest.fixture(scope="module")
def started():
  """A scene that knows its hull, and the Gaussians that lie on it."""
  mouse = make_scene(0, cameras.generate_camera_poses(4, image_size=48))
  hull = HullConfig(resolution=64, num_points=300)
  return start_scene(jax.tree.map(jnp.asarray, mouse), _CONFIG, jax.random.key(0), hull)


def _loss(gaussians, views, config=_CONFIG):
  losses = [
    hull_loss(gaussians, jnp.ones(300, bool), views, jax.random.key(i), config) for i in range(6)
  ]
  return float(np.mean(losses))


def test_silhouettes_nest_and_leave_a_margin(started):
  views = started[0].hull_views
  assert views.outer.shape == views.inner.shape == (4, 48, 48)
  assert (np.asarray(views.outer) >= np.asarray(views.inner)).all()
  assert ((np.asarray(views.outer) > 200) & (np.asarray(views.inner) < 50)).any()


def test_gaps_cost_inside_and_specks_outside(started):
  one, gaussians = started
  inside = dataclasses.replace(_CONFIG, hull_outside=0.0)
  outside = dataclasses.replace(_CONFIG, hull_inside=0.0)
  faint = dataclasses.replace(gaussians, logit_opacities=gaussians.logit_opacities - 4.0)
  assert _loss(faint, one.hull_views, inside) > _loss(gaussians, one.hull_views, inside) + 0.1
  spread = dataclasses.replace(gaussians, means=gaussians.means * 1.5)
  assert _loss(spread, one.hull_views, outside) > _loss(gaussians, one.hull_views, outside) + 0.1


def test_without_weights_there_are_no_such_views(started):
  plain = dataclasses.replace(_CONFIG, hull_inside=0.0, hull_outside=0.0)
  one, gaussians = start_scene(
    dataclasses.replace(started[0], hull_views=None),
    plain,
    jax.random.key(0),
    HullConfig(resolution=64, num_points=300),
  )
  assert one.hull_views is None
  assert _loss(gaussians, one.hull_views, plain) == 0.0


def test_views_of_the_hull_survive_cropping_and_stacking(started):
  one = jax.tree.map(np.asarray, started[0])
  batch = scene.stack_scenes([scene.crop_views(one, (48, 48)), scene.pad_views(one, 6)])
  assert batch.hull_views.outer.shape == (2, 4, 48, 48)
  assert batch.view_mask.sum(1).tolist() == [4, 4]


def test_what_is_spared_feels_no_pressure(started):
  gaussians = started[1]
  alive = jnp.ones(300, bool)
  pressed = jnp.arange(300) < 100
  config = dataclasses.replace(_CONFIG, spare=1e-6)
  felt = _press(gaussians, alive, pressed, config)
  usual = _press(gaussians, alive, pressed, _CONFIG)
  np.testing.assert_array_equal(felt.logit_opacities[100:], 0.0)
  np.testing.assert_array_equal(felt.logit_opacities[:100], usual.logit_opacities[:100])
  assert (np.asarray(usual.logit_opacities[100:]) > 0).all()
