"""Splat PLY: the layout byte by byte, exact round trips, and one error line for each bad file."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import plyfile
import pytest

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians2D, Gaussians3D
from jaxsplat_mouse.io import ply

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")


def make(cls=Gaussians3D, n=7, k=4, seed=0):
  r = np.random.default_rng(seed)
  draw = lambda *shape: r.normal(size=shape).astype(np.float32)
  scales = 2 if cls is Gaussians2D else 3
  return cls(
    means=draw(n, 3),
    log_scales=draw(n, scales),
    quats=draw(n, 4),
    logit_opacities=draw(n),
    sh=draw(n, k, 3),
  )


@pytest.mark.parametrize("cls", [Gaussians3D, Gaussians2D])
@pytest.mark.parametrize("k", [1, 4, 9, 16])
def test_round_trip_is_exact(tmp_path: pathlib.Path, cls, k):
  gaussians = make(cls, k=k)
  ply.write_gaussians(tmp_path / "g.ply", gaussians)
  back = ply.read_gaussians(tmp_path / "g.ply")
  assert type(back) is cls
  for field in FIELDS:
    value = getattr(back, field)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, getattr(gaussians, field), err_msg=field)


def test_layout_is_the_standard_one(tmp_path: pathlib.Path):
  gaussians = make(k=4)
  ply.write_gaussians(tmp_path / "g.ply", gaussians)
  raw = (tmp_path / "g.ply").read_bytes()
  header = raw[: raw.index(b"end_header\n") + 11].decode().splitlines()
  rest = [f"f_rest_{i}" for i in range(9)]
  names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
  names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
  expected = ["ply", "format binary_little_endian 1.0", "element vertex 7"]
  assert header == [*expected, *(f"property float {n}" for n in names), "end_header"]
  body = np.frombuffer(raw[-7 * 4 * len(names) :], "<f4").reshape(7, len(names))
  column = lambda name: body[:, names.index(name)]
  assert not body[:, 3:6].any()
  # channel-major: f_rest_4 is the second higher coefficient of green
  np.testing.assert_array_equal(column("f_rest_4"), gaussians.sh[:, 2, 1])
  np.testing.assert_array_equal(column("f_dc_2"), gaussians.sh[:, 0, 2])
  np.testing.assert_array_equal(column("opacity"), gaussians.logit_opacities)
  np.testing.assert_array_equal(column("scale_1"), gaussians.log_scales[:, 1])
  np.testing.assert_array_equal(column("rot_0"), gaussians.quats[:, 0])


def test_discs_have_two_scales(tmp_path: pathlib.Path):
  ply.write_gaussians(tmp_path / "g.ply", make(Gaussians2D))
  header = (tmp_path / "g.ply").read_bytes().split(b"end_header")[0].decode()
  assert "scale_1" in header
  assert "scale_2" not in header


def test_discs_as_thin_ellipsoids():
  discs = make(Gaussians2D)
  ellipsoids = ply.thin_ellipsoids(discs)
  assert isinstance(ellipsoids, Gaussians3D)
  np.testing.assert_array_equal(ellipsoids.log_scales[:, :2], discs.log_scales)
  np.testing.assert_allclose(np.exp(ellipsoids.log_scales[:, 2]), 1e-6, rtol=1e-5)


def test_device_arrays_are_written(tmp_path: pathlib.Path):
  gaussians = make()
  on_device = Gaussians3D(**{f: jnp.asarray(getattr(gaussians, f)) for f in FIELDS})
  ply.write_gaussians(tmp_path / "g.ply", on_device)
  np.testing.assert_array_equal(ply.read_gaussians(tmp_path / "g.ply").means, gaussians.means)


def test_other_property_orders_types_and_encodings_are_read(tmp_path: pathlib.Path):
  gaussians = make(k=1)
  ply.write_gaussians(tmp_path / "g.ply", gaussians)
  data = plyfile.PlyData.read(tmp_path / "g.ply")["vertex"].data
  names = [n for n in reversed(data.dtype.names) if n not in ("nx", "ny", "nz")]
  other = np.zeros(len(data), [(n, "f8") for n in names] + [("selected", "u1")])
  for name in names:
    other[name] = data[name]
  element = plyfile.PlyElement.describe(other, "vertex")
  plyfile.PlyData([element], text=True).write(str(tmp_path / "t.ply"))
  back = ply.read_gaussians(tmp_path / "t.ply")
  for field in FIELDS:
    np.testing.assert_allclose(getattr(back, field), getattr(gaussians, field), rtol=1e-6)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_written(tmp_path: pathlib.Path, field, bad):
  gaussians = make()
  ply.write_gaussians(tmp_path / "g.ply", gaussians)
  before = (tmp_path / "g.ply").read_bytes()
  broken = getattr(gaussians, field).copy()
  broken.reshape(-1)[-1] = bad
  with pytest.raises(ValueError, match="not finite"):
    ply.write_gaussians(tmp_path / "g.ply", dataclasses.replace(gaussians, **{field: broken}))
  assert (tmp_path / "g.ply").read_bytes() == before
  assert os.listdir(tmp_path) == ["g.ply"]


def test_mismatched_or_no_splats_are_not_written(tmp_path: pathlib.Path):
  with pytest.raises(ValueError, match="no splats"):
    ply.write_gaussians(tmp_path / "g.ply", make(n=0))
  with pytest.raises(ValueError, match="mismatched"):
    ply.write_gaussians(tmp_path / "g.ply", dataclasses.replace(make(), quats=make().means))
  with pytest.raises(ValueError, match="mismatched"):
    ply.write_gaussians(tmp_path / "g.ply", make(k=5))
  assert not os.listdir(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path: pathlib.Path, monkeypatch):
  ply.write_gaussians(tmp_path / "g.ply", make())
  before = (tmp_path / "g.ply").read_bytes()

  def full(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space"):
    ply.write_gaussians(tmp_path / "g.ply", make(seed=1))
  assert (tmp_path / "g.ply").read_bytes() == before
  assert os.listdir(tmp_path) == ["g.ply"]


def write_columns(path: pathlib.Path, change) -> pathlib.Path:
  """A good splat PLY whose columns went through `change`: dict -> dict."""
  ply.write_gaussians(path, make(k=4))
  data = plyfile.PlyData.read(path)["vertex"].data
  columns = change({name: np.array(data[name]) for name in data.dtype.names})
  table = np.zeros(len(data), [(name, column.dtype) for name, column in columns.items()])
  for name, column in columns.items():
    table[name] = column
  plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(str(path))
  return path


def without(*names):
  return lambda columns: {k: v for k, v in columns.items() if k not in names}


@pytest.mark.parametrize(
  ("change", "field"),
  [
    (without("opacity"), "opacity"),
    (without("f_dc_1"), "f_dc_1"),
    (without("x"), "x"),
    (without("rot_3"), "rot_3"),
    (without("scale_1", "scale_2"), "scale_*"),
    (without("f_rest_8"), "f_rest_*"),
    (lambda c: {**c, "scale_3": c["scale_0"]}, "scale_*"),
    (lambda c: {**c, "y": c["y"] * np.nan}, "y"),
    (lambda c: {**c, "rot_2": c["rot_2"] + np.inf}, "rot_2"),
  ],
)
def test_wrong_columns_are_named(tmp_path: pathlib.Path, change, field):
  path = write_columns(tmp_path / "g.ply", change)
  with pytest.raises(InputError) as caught:
    ply.read_gaussians(path)
  assert caught.value.field == field
  assert str(path) in str(caught.value)
  assert "expected" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_unchanged_columns_pass(tmp_path: pathlib.Path):
  ply.read_gaussians(write_columns(tmp_path / "g.ply", lambda columns: columns))


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    (lambda raw: b"", "not a PLY"),
    (lambda raw: b"solid cube", "not a PLY"),
    (lambda raw: b"ply\n\xff\x00\x17", "broken"),
    (lambda raw: raw[:-10], "broken"),
    (lambda raw: raw[:200], "broken"),
    (lambda raw: raw.replace(b"vertex 7", b"vertex 70000000000000"), "broken"),
    (lambda raw: raw.replace(b"element vertex", b"element points"), "no such element"),
    (lambda raw: raw.replace(b"vertex 7", b"vertex 0"), "0 splats"),
    (lambda raw: raw.replace(b"float opacity", b"list uchar float opacity"), "PLY"),
  ],
)
def test_broken_files_are_reported_in_one_line(tmp_path: pathlib.Path, change, problem):
  ply.write_gaussians(tmp_path / "g.ply", make())
  path = tmp_path / "bad.ply"
  path.write_bytes(change((tmp_path / "g.ply").read_bytes()))
  with pytest.raises(InputError, match=problem) as caught:
    ply.read_gaussians(path)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_missing_file_is_reported(tmp_path: pathlib.Path):
  with pytest.raises(InputError, match=r"no\.ply.*no such file"):
    ply.read_gaussians(tmp_path / "no.ply")
