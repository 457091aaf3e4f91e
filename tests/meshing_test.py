"""Meshes: fusion of exact depth gives the true surface back, and specks vanish."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, meshing
from jaxsplat_mouse.procedural_mouse.mouse import (
  make_mouse,
  render_truth,
  signed_distance,
  truth_surface_points,
)

pytest.importorskip("skimage")

_LOW, _HIGH = np.full(3, -0.9, np.float32), np.full(3, 0.9, np.float32)


def _orbits(size: int = 96) -> cameras.Cameras:
  rings = [cameras.generate_camera_poses(6, e, image_size=size) for e in (-40.0, 10.0, 55.0)]
  return cameras.concatenate_cameras(rings)


@pytest.fixture(scope="module")
def mouse():
  return make_mouse(0)


@pytest.fixture(scope="module")
def maps(mouse):
  views = render_truth(mouse, _orbits(), samples=1, edge_samples=1)
  rgb = views.images * views.alphas[..., None]
  found = {"rgb": rgb, "alpha": views.alphas, "depth": views.depth}
  return {name: jnp.asarray(value) for name, value in found.items()}


def _fused(maps):
  field, colors = meshing.fuse_depth_maps(maps, _orbits(), _LOW, _HIGH, 96, 0.06)
  return np.asarray(field), np.asarray(colors)


@pytest.fixture(scope="module")
def solid(maps):
  return meshing.extract_mesh(*_fused(maps), _LOW, _HIGH)


def test_exact_depth_gives_the_true_surface(mouse, solid):
  points, normals = meshing.sample_surface(solid, 4000)
  errors = meshing.compare_surfaces(points, normals, *truth_surface_points(mouse, 4000))
  assert errors["accuracy"] < 0.015
  assert errors["completeness"] < 0.03  # the tail is thinner than a sample
  assert errors["normal_error"] < 20
  distance = signed_distance(mouse, solid.vertices)
  assert np.median(np.abs(distance)) < 0.006


def test_a_view_that_looks_through_the_animal_does_not_hollow_it(mouse, maps):
  gap = {**maps, "alpha": maps["alpha"].at[7].set(0.0)}
  points, normals = meshing.sample_surface(meshing.extract_mesh(*_fused(gap), _LOW, _HIGH), 4000)
  errors = meshing.compare_surfaces(points, normals, *truth_surface_points(mouse, 4000))
  assert errors["accuracy"] < 0.015
  assert errors["normal_error"] < 25


def test_normals_point_outward_and_colours_are_those_of_the_animal(maps, solid):
  outward = (solid.normals * (solid.vertices - solid.vertices.mean(0))).sum(-1)
  assert (outward > 0).mean() > 0.75
  rgb, alpha = np.asarray(maps["rgb"]), np.asarray(maps["alpha"])
  assert np.abs(solid.colors.mean(0) - rgb[alpha > 0.9].mean(0)).max() < 0.1


def test_specks_are_left_out(maps, solid):
  field, colors = _fused(maps)
  field = field.copy()
  field[3:6, 3:6, 3:6] = -1.0
  again = meshing.extract_mesh(field, colors, _LOW, _HIGH)
  assert len(again.vertices) == len(solid.vertices)


def test_an_empty_field_has_no_surface():
  with pytest.raises(ValueError, match="no surface"):
    meshing.extract_mesh(np.ones((8, 8, 8)), np.zeros((8, 8, 8, 3)), _LOW, _HIGH)


def test_distances_are_those_of_known_surfaces():
  rng = np.random.default_rng(0)
  normals = rng.normal(size=(3000, 3))
  normals /= np.linalg.norm(normals, axis=1, keepdims=True)
  errors = meshing.compare_surfaces(1.1 * normals, normals, normals, normals)
  assert errors["accuracy"] == pytest.approx(0.1, abs=1e-3)
  assert errors["normal_error"] == pytest.approx(0.0, abs=0.1)
