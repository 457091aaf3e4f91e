"""The training configuration that goes with a dataset, and lists that mix datasets by weight."""

from __future__ import annotations

import json
import os
import pathlib
import string

from jaxsplat_mouse.dataset.lists import check_list_path, write_mixed_list
from jaxsplat_mouse.io import atomic

TRAINING_FILE = "mouse_gslrm_synthetic.yaml"
MIXED_LIST = "train_mixed.txt"
OBJAVERSE_WEIGHT, MOUSE_WEIGHT = 0.7, 0.3

_TEMPLATE = string.Template("""\
# GS-LRM on synthetic mice mixed with Objaverse, for FaceLift (github.com/weijielyu/FaceLift):
#
#   cd FaceLift && torchrun --nproc_per_node=8 train_gslrm.py --config THIS_FILE
#
# How the mixture is read
#   A trainer with a MixedDataset reads `datasets` below: it draws a list by its weight, then a
#   scene of that list. FaceLift's own RandomViewDataset reads one list only, `dataset_path`, and
#   ignores `class_name` and `datasets`. For it the weights become repeated lines of one list:
#
#     python -c "from jaxsplat_mouse.dataset import training_yaml as t; t.write_training_yaml(
#         $root_argument, objaverse_list='/path/to/objaverse/train.txt')"
#
#   writes $mixed_name beside this file, every scene at least once and repeated until 70 % of the
#   lines are Objaverse and 30 % are mice, and points `dataset_path` at it.
#   $mixture_state
#
# Paths are absolute because FaceLift takes a relative one from its working directory, and because
# its loader replaces a scene that it cannot open by another one without stopping. After moving the
# dataset: python -m jaxsplat_mouse.validate DATASET --relocate

model:
  class_name: gslrm.model.gslrm.GSLRM
  image_tokenizer: {image_size: $image_size, patch_size: 8, in_channels: 9}
  transformer: {d: 1024, d_head: 64, n_layer: 24}
  gaussians: {n_gaussians: 2, sh_degree: 0, upsampler: {upsample_factor: 1}}
  add_refsrc_marker: false
  hard_pixelalign: true
  use_custom_plucker: true
  clip_xyz: true                     # to +-0.91: the animals stay inside

training:
  dataset:
    class_name: MixedDataset
    datasets:
      - {name: objaverse, weight: $objaverse_weight, dataset_path: $objaverse_list}
      - {name: mouse_synthetic, weight: $mouse_weight, dataset_path: $mouse_list}
    dataset_path: $dataset_path
    num_views: 8                     # drawn per scene, all of them supervised
    num_input_views: 4               # of which the model sees these
    target_has_input: true
    maximize_view_overlap: true      # every orbit camera has neighbours within 60 degrees
    normalize_distance_to: 0.0       # cameras are used as they stand
    remove_alpha: false
    background_color: white
  dataloader: {batch_size_per_gpu: 2, num_workers: 4, num_threads: 32, prefetch_factor: 32}
  losses:                            # over all views of a sample
    l2_loss_weight: 1.0
    perceptual_loss_weight: 0.5      # VGG19
    lpips_loss_weight: 0.0
    ssim_loss_weight: 0.0
    pixelalign_loss_weight: 0.0
    masked_pixelalign_loss: true
    pointsdist_loss_weight: 0.0
    warmup_pointsdist: false
    distill_loss_weight: 0.0
  optimizer:                         # AdamW; decay on parameters of two or more dimensions
    lr: 0.0001
    beta1: 0.9
    beta2: 0.95
    weight_decay: 0.05
    reset_lr: false
    reset_weight_decay: false
    reset_training_state: true
  schedule:                          # cosine with warm-up
    num_epochs: 100000
    early_stop_after_epochs: 100000
    max_fwdbwd_passes: 20000
    warmup: 500
    l2_warmup_steps: 500
  runtime:
    use_tf32: true
    use_amp: true
    amp_dtype: bf16
    torch_compile: false
    grad_accum_steps: 1
    grad_clip_norm: 1.0
    grad_checkpoint_every: 1
  checkpointing:
    resume_ckpt: checkpoints/gslrm/stage_2   # the weights to start from
    checkpoint_every: 5000
    checkpoint_dir: checkpoints/gslrm/mouse_synthetic
  logging:
    print_every: 20
    vis_every: 250
    wandb:
      project: facelift_gslrm
      exp_name: mouse_gslrm_synthetic
      group: mouse
      job_type: train
      log_every: 50
      offline: true

inference: {enabled: false, output_dir: experiments/inference/mouse_gslrm_synthetic}

validation:
  enabled: $validate                 # needs at least one scene in the list
  val_every: 5000
  output_dir: experiments/validation/mouse_gslrm_synthetic
  dataset_path: $val_list
""")


def write_training_yaml(
  root: str | os.PathLike[str],
  *,
  objaverse_list: str | os.PathLike[str] | None = None,
  image_size: int = 512,
) -> pathlib.Path:
  """Writes `mouse_gslrm_synthetic.yaml` into the dataset `root`, which has its lists already.

  Args:
    root: the dataset.
    objaverse_list: a list of Objaverse scenes in FaceLift's layout. With it the mixed list is
      written too and FaceLift's own loader trains on the mixture; without it, on the mice alone.
    image_size: side of the images in pixels.

  Returns:
    the path of the file.

  Raises:
    InputError: the Objaverse list or one of its scenes is missing.
  """
  root = pathlib.Path(root).absolute()
  check_list_path(root)
  mouse_list, dataset_path = root / "train.txt", root / "train.txt"
  state = "Not done yet: dataset_path below is the mouse list alone."
  if objaverse_list is not None:
    dataset_path = root / MIXED_LIST
    objaverse_list = pathlib.Path(objaverse_list).absolute()
    weights = {objaverse_list: OBJAVERSE_WEIGHT, mouse_list: MOUSE_WEIGHT}
    write_mixed_list(dataset_path, weights)
    state = "Done: dataset_path below is that list."
  val_list = root / "val.txt"
  text = _TEMPLATE.substitute(
    root_argument=repr(str(root)),
    mixed_name=MIXED_LIST,
    mixture_state=state,
    image_size=image_size,
    objaverse_weight=OBJAVERSE_WEIGHT,
    objaverse_list=json.dumps(str(objaverse_list or "/path/to/objaverse/train.txt")),
    mouse_weight=MOUSE_WEIGHT,
    mouse_list=json.dumps(str(mouse_list)),
    dataset_path=json.dumps(str(dataset_path)),
    validate=str(val_list.is_file() and val_list.stat().st_size > 0).lower(),
    val_list=json.dumps(str(val_list)),
  )
  atomic.write_bytes(root / TRAINING_FILE, text.encode())
  return root / TRAINING_FILE
