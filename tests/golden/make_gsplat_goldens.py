"""Makes the golden arrays of this folder with gsplat's own CPU reference (see third_party/).

    python -m venv .golden && .golden/bin/pip install torch==2.13.0 numpy jaxtyping rich packaging
    .golden/bin/pip install --no-deps gsplat==1.5.3
    .golden/bin/python tests/golden/make_gsplat_goldens.py

The tests only read the .npz files; they need neither this script nor torch nor gsplat. gsplat runs
in float64 on inputs rounded to float32, so that a golden value is exact to its stored float32.

gsplat's two CPU rasterizers call a CUDA routine (`rasterize_to_indices_in_range`) and the package
nerfacc; `stand_ins.py` takes their place.

Splats are redrawn until no pixel is near a threshold (alpha = 1/255, T = 1e-4, T = 0.5), no two
splats are nearly at one depth and no normal nearly faces sideways, so that float32 takes the same
decisions everywhere and tests need not excuse any pixel.
"""

from __future__ import annotations

import gsplat
import numpy as np
import probe
import stand_ins
import torch
from gsplat.cuda import _torch_impl as impl3d
from gsplat.cuda import _torch_impl_2dgs as impl2d

OPAQUE_LOGIT = 14.0
TILE = 64  # one tile holds the image
SEEDS = {3: 349, 2: 107}  # the first ones that yield a suitable scene; the search starts there
OFFSETS = ((0.0, 0.0), (1.0, -0.5), (-2.0, 3.0), (-4.0, -1.0))  # pixels, of the sampled rays
BACKGROUND = (0.2, 0.5, 0.8)
FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")
SIZES = ((48, 40), (36, 44))  # width, height: one landscape, one portrait
RENDER_SIZE = (44, 36)  # one size, so that tests compile once; no multiple of a tile
INTRINSICS = np.array([[52.0, 47.0, 22.3, 21.4], [41.0, 58.0, 19.1, 20.2]], np.float32)


# ---------------------------------------------------------------------------------------------
# Inputs.


def pose(eye, roll):
  """World-to-camera (4, 4) of a camera at `eye` that looks at the origin, rolled by `roll` rad."""
  forward = -np.asarray(eye, np.float64) / np.linalg.norm(eye)
  right = np.cross(forward, [0.0, 0.0, 1.0])
  right /= np.linalg.norm(right)
  down = np.cross(forward, right)
  c, s = np.cos(roll), np.sin(roll)
  matrix = np.eye(4)
  matrix[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward])
  matrix[:3, 3] = -matrix[:3, :3] @ np.asarray(eye, np.float64)
  return matrix


POSES = np.stack([pose((2.4, -1.1, 0.9), 0.2), pose((-1.0, 2.0, -1.6), -0.7)]).astype(np.float32)


def draw(rng, count, num_scales):
  """Random splats (float32) in a ball of radius 0.5: several layers, from faint to opaque."""
  largest = 0.2 if num_scales == 3 else 0.3  # discs cover less than ellipsoids
  direction = rng.normal(size=(count, 3))
  direction /= np.linalg.norm(direction, axis=1, keepdims=True)
  splats = dict(
    means=direction * 0.5 * rng.uniform(size=(count, 1)) ** (1 / 3),
    log_scales=np.log(rng.uniform(0.03, largest, size=(count, num_scales))),
    quats=rng.normal(size=(count, 4)) * rng.uniform(0.5, 2.0, size=(count, 1)),
    logit_opacities=rng.normal(0.5, 2.0, size=count),
    sh=rng.normal(size=(count, 4, 3)) * np.array([1.2, 0.3, 0.3, 0.3])[:, None],
  )
  splats["logit_opacities"][: count // 4] = OPAQUE_LOGIT  # above 0.999 after the sigmoid
  return {name: value.astype(np.float32) for name, value in splats.items()}


def at_the_frustum_edge(rng, camera, count):
  """World means (count, 3) whose x/z or y/z lies between 0.8 and 1.7 times the image's edge."""
  fx, fy, cx, cy = INTRINSICS[camera].astype(np.float64)
  width, height = SIZES[camera]
  edges = np.array([-cx / fx, (width - cx) / fx, -cy / fy, (height - cy) / fy])
  z = rng.uniform(1.0, 3.0, size=count)
  x, y = rng.uniform(-0.3, 0.3, size=(2, count)) * z
  for i in range(count):
    tangent = edges[i % 4] * rng.uniform(0.8, 1.7)
    if i % 4 < 2:
      x[i] = tangent * z[i]
    else:
      y[i] = tangent * z[i]
  in_camera = np.stack([x, y, z], -1)
  rotation, translation = POSES[camera][:3, :3], POSES[camera][:3, 3]
  return (in_camera - translation) @ rotation


def seen_edge_on(means, quats):
  """Whether (N,) some camera sees a disc at less than 3 degrees."""
  w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
  normals = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
  sight = means - np.linalg.inv(POSES)[:, None, :3, 3]
  cosines = (sight * normals).sum(-1) / np.linalg.norm(sight, axis=-1)
  return (np.abs(cosines) < 0.05).any(0)


def leaves(splats, fields=FIELDS):
  """The parameters as float64 tensors that collect gradients."""
  return {name: torch.tensor(splats[name], dtype=torch.float64).requires_grad_() for name in fields}


def camera_tensors(camera):
  """viewmats (1, 4, 4) and Ks (1, 3, 3), float64."""
  fx, fy, cx, cy = INTRINSICS[camera]
  k = torch.eye(3, dtype=torch.float64)[None].clone()
  k[0, 0, 0], k[0, 1, 1], k[0, 0, 2], k[0, 1, 2] = map(float, (fx, fy, cx, cy))
  return torch.tensor(POSES[camera], dtype=torch.float64)[None], k


def view_colors(p, viewmat):
  """Colours (N, 3) of degree-1 SH seen from the camera, by gsplat's basis, shift and clamp."""
  center = torch.linalg.inv(viewmat)[:3, 3]
  return torch.clamp_min(impl3d._spherical_harmonics(1, p["means"] - center, p["sh"]) + 0.5, 0.0)


def one_tile(means2d, radii, depths):
  """gsplat's intersection lists with a single tile that covers the image, sorted by depth."""
  stand_ins.pixel_lists.depths = depths[0].detach()
  _, ids, flat = impl3d._isect_tiles(means2d.detach(), radii, depths.detach(), TILE, 1, 1)
  return impl3d._isect_offset_encode(ids, 1, 1, 1), flat


# ---------------------------------------------------------------------------------------------
# The cases.


def gradients(output, salt, parameters):
  """Gradients of sum(probe * output) for every parameter, float32 arrays."""
  weights = torch.tensor(probe.probe(tuple(output.shape), salt))
  found = torch.autograd.grad(
    (weights * output).sum(), list(parameters.values()), retain_graph=True, allow_unused=True
  )
  return {
    name: np.zeros(leaf.shape, np.float32) if grad is None else stored(grad)
    for (name, leaf), grad in zip(parameters.items(), found, strict=True)
  }


def stored(tensor):
  """As a float32 array (integers as they are)."""
  array = tensor.detach().numpy()
  return array.astype(np.float32) if array.dtype == np.float64 else array


def record(arrays, prefix, outputs, parameters, differentiate):
  """Adds the outputs and the gradients of those in `differentiate` (name -> salt)."""
  for name, output in outputs.items():
    arrays[f"{prefix}{name}"] = stored(output)
  for name, salt in differentiate.items():
    for field, grad in gradients(outputs[name], salt, parameters).items():
      if np.any(grad):
        arrays[f"{prefix}d_{name}/{field}"] = grad


def spherical_harmonics():
  """Values before shift and clamp, colours after, and the gradients of the colours."""
  rng = np.random.default_rng(0)
  directions = rng.normal(size=(40, 3))
  directions[:6] = np.concatenate([np.eye(3), -np.eye(3)])
  directions[6:] *= rng.uniform(0.2, 3.0, size=(34, 1))
  sh = 0.5 * rng.normal(size=(40, 16, 3))
  arrays = dict(directions=directions.astype(np.float32), sh=sh.astype(np.float32))
  p = leaves(arrays, ("directions", "sh"))
  for degree in range(4):
    used = {**p, "sh": p["sh"]}
    raw = impl3d._spherical_harmonics(degree, p["directions"], p["sh"])
    outputs = dict(raw=raw, colors=torch.clamp_min(raw + 0.5, 0.0))
    record(arrays, f"degree{degree}/", outputs, used, {"colors": 1})
  return arrays


def camera_arrays(sizes):
  """The cameras, as every file stores them."""
  return dict(world_to_camera=POSES, intrinsics=INTRINSICS, sizes=np.array(sizes))


def projection(num_scales):
  """Projected splats of both kinds, many of them at the frustum's edge, and their gradients."""
  rng = np.random.default_rng(10 + num_scales)
  splats = draw(rng, 48, num_scales)
  edge = [at_the_frustum_edge(rng, camera, 16) for camera in (0, 1)]
  splats["means"][:32] = np.concatenate(edge)
  for camera in (0, 1):  # two splats behind each camera
    rotation, translation = POSES[camera][:3, :3], POSES[camera][:3, 3]
    in_camera = np.array([[0.1, 0.2, -1.0], [-0.3, 0.1, -0.4]])
    splats["means"][32 + 2 * camera : 34 + 2 * camera] = (in_camera - translation) @ rotation
  while num_scales == 2 and (thin := seen_edge_on(splats["means"], splats["quats"])).any():
    # Thinner on the image than the rounding of a float32 pixel coordinate: nothing to compare.
    splats["quats"][thin] = rng.normal(size=(thin.sum(), 4))
  arrays = {**camera_arrays(SIZES), **splats}
  for camera, (width, height) in enumerate(SIZES):
    p = leaves(splats)
    outputs = project(num_scales, p, camera, width, height)
    front = outputs["depths"] > 0.05
    arrays[f"camera{camera}/in_front"] = front.numpy()
    if num_scales == 3:
      salts = dict(means2d=1, conics=2, depths=3)
    else:
      salts = dict(normals=5, footprint=10, hit=11)
      pixels = projected_means(p, camera).detach()[:, None] + torch.tensor(OFFSETS).double()
      pixels = torch.where(front[:, None, None], pixels, 0.0).float()
      arrays[f"camera{camera}/pixels"] = pixels.numpy()
      in_world = outputs["normals"] @ torch.linalg.inv(camera_tensors(camera)[0][0])[:3, :3].T
      outputs["normals"] = in_world
      transforms = outputs.pop("transforms")
      outputs["footprint"], outputs["hit"] = disc_samples(transforms, pixels.double())
      del outputs["means2d"], outputs["radii"]  # bounding boxes, which are no part of the image
    for name in salts:  # what lies behind the camera has no defined projection
      keep = front.reshape(front.shape + (1,) * (outputs[name].ndim - 1))
      outputs[name] = torch.where(keep, outputs[name], torch.zeros_like(outputs[name]))
    record(arrays, f"camera{camera}/", outputs, p, salts)
  return arrays


def project(num_scales, p, camera, width, height):
  """gsplat's projection of one camera, with the camera's axis dropped."""
  viewmats, ks = camera_tensors(camera)
  scales = torch.exp(p["log_scales"])
  if num_scales == 3:
    covars, _ = impl3d._quat_scale_to_covar_preci(p["quats"], scales, compute_preci=False)
    names = ("radii", "means2d", "depths", "conics")
    values = impl3d._fully_fused_projection(p["means"], covars, viewmats, ks, width, height)[:4]
  else:
    scales = torch.cat([scales, torch.ones_like(scales[:, :1])], -1)
    names = ("radii", "means2d", "depths", "transforms", "normals")
    values = impl2d._fully_fused_projection_2dgs(
      p["means"], p["quats"], scales, viewmats, ks, width, height
    )
  return {name: value[0] for name, value in zip(names, values, strict=True)}


def projected_means(p, camera):
  """The pixels (N, 2) of the means."""
  viewmats, ks = camera_tensors(camera)
  image = (p["means"] @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]) @ ks[0].T
  return image[:, :2] / image[:, 2:]


def disc_samples(transforms, pixels):
  """exp(-|s|^2 / 2) and the depth of the hit times that, where rays (N, S, 2) meet the discs.

  s is a disc's own coordinate of the hit, in standard deviations. Both outputs are bounded, also
  for discs seen edge-on, so that no splat drowns the others in a gradient.
  """
  h_u = pixels[..., 0:1] * transforms[:, None, 2] - transforms[:, None, 0]
  h_v = pixels[..., 1:2] * transforms[:, None, 2] - transforms[:, None, 1]
  zeta = torch.linalg.cross(h_u, h_v)
  hit = zeta / zeta[..., 2:]
  footprint = torch.exp(-0.5 * hit[..., :2].square().sum(-1))
  return footprint, footprint * (transforms[:, None, 2] * hit).sum(-1)


def render_3d(p, camera):
  """rgb over the background, alpha and expected depth of 3D splats."""
  width, height = RENDER_SIZE
  s = {k: v[None] for k, v in project(3, p, camera, width, height).items()}
  colors = view_colors(p, camera_tensors(camera)[0][0])[None]
  channels = torch.cat([colors, s["depths"][..., None]], -1)
  background = torch.tensor([[*BACKGROUND, 0.0]], dtype=torch.float64)
  offsets, flat = one_tile(s["means2d"], s["radii"], s["depths"])
  opacities = torch.sigmoid(p["logit_opacities"])[None]
  splats = (s["means2d"], s["conics"], channels, opacities)
  tiling = (width, height, TILE, offsets, flat)
  image, alpha = impl3d._rasterize_to_pixels(*splats, *tiling, backgrounds=background)
  depth = image[0, ..., 3] / alpha[0, ..., 0].clamp(min=1e-10)
  return dict(rgb=image[0, ..., :3], alpha=alpha[0, ..., 0], depth=depth), colors


def render_2d(p, camera):
  """rgb over the background, alpha and world-space normals (sum of w n) of 2D splats.

  gsplat's depth is left out: it uses the splat's centre, not the point that the ray meets. Its
  screen low-pass is taken about `means2d`; what goes in here is the projected centre, as in Huang
  et al. 2024, and not the middle of the bounding box that gsplat's projection returns.
  """
  width, height = RENDER_SIZE
  s = {k: v[None] for k, v in project(2, p, camera, width, height).items()}
  viewmat = camera_tensors(camera)[0][0]
  colors = view_colors(p, viewmat)[None]
  s["means2d"] = projected_means(p, camera)[None]
  background = torch.tensor([BACKGROUND], dtype=torch.float64)
  offsets, flat = one_tile(s["means2d"], s["radii"], s["depths"])
  opacities = torch.sigmoid(p["logit_opacities"])[None]
  splats = (s["means2d"], s["transforms"], colors, s["normals"], opacities)
  tiling = (width, height, TILE, offsets, flat)
  image, alpha, normal = impl2d._rasterize_to_pixels_2dgs(*splats, *tiling, backgrounds=background)
  in_world = normal[0] @ torch.linalg.inv(viewmat)[:3, :3].T
  return dict(rgb=image[0], alpha=alpha[0, ..., 0], normal=in_world), colors


def check_scene(splats, colors):
  """Refuses discs seen nearly edge-on, and a scene without a clamped colour."""
  if splats["log_scales"].shape[1] == 2:
    edge_on = np.nonzero(seen_edge_on(splats["means"], splats["quats"]))[0]
    if edge_on.size:
      raise stand_ins.UnsuitableError("edge-on", edge_on)
  if not (colors == 0).any():
    raise stand_ins.TooPlainError("no clamped colour")


def rendering(num_scales):
  """A suitable scene, rendered from both cameras, and its gradients."""
  for seed in range(SEEDS[num_scales], 1000):
    rng = np.random.default_rng(1000 * num_scales + seed)
    splats = draw(rng, 60, num_scales)
    try:
      for _ in range(50):
        try:
          arrays = rendered(num_scales, splats)
          print(f"  seed {1000 * num_scales + seed}")
          return arrays
        except stand_ins.UnsuitableError as reason:
          redraw(rng, splats, reason.splats, num_scales)
    except stand_ins.TooPlainError:
      continue
  raise RuntimeError("no suitable scene")


def redraw(rng, splats, which, num_scales):
  """Replaces some splats in place; opaque ones stay opaque."""
  for i in which:
    opaque = splats["logit_opacities"][i] == OPAQUE_LOGIT
    for name, value in draw(rng, 4, num_scales).items():
      splats[name][i] = value[0 if opaque else 3]


def rendered(num_scales, splats):
  """What one rendering file holds."""
  render = render_3d if num_scales == 3 else render_2d
  salts = dict(rgb=6, alpha=7, depth=8) if num_scales == 3 else dict(rgb=6, alpha=7, normal=9)
  arrays = {**camera_arrays([RENDER_SIZE] * 2), **splats}
  arrays["background"] = np.array(BACKGROUND, np.float32)
  done = []
  for camera in range(len(SIZES)):
    p = leaves(splats)
    outputs, colors = render(p, camera)
    check_scene(splats, colors)
    done.append((outputs, p))
  for camera, (outputs, p) in enumerate(done):
    record(arrays, f"camera{camera}/", outputs, p, salts)
  return arrays


def main():
  assert gsplat.__version__ == "1.5.3", gsplat.__version__
  stand_ins.install()
  files = dict(
    spherical_harmonics=spherical_harmonics,
    projection_3d=lambda: projection(3),
    projection_2d=lambda: projection(2),
    render_3d=lambda: rendering(3),
    render_2d=lambda: rendering(2),
  )
  for name, make in files.items():
    print(name)
    path = probe.FOLDER / f"{name}.npz"
    arrays = make()
    assert all(np.isfinite(a).all() for a in arrays.values()), name
    np.savez_compressed(path, **arrays)
    print(f"  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
  main()
