"""Shows a fit in the browser: splats, the cameras it was made from, and their photographs.

  python -m jaxsplat_mouse.view WORKDIR
      all fits of a run, one at a time

  python -m jaxsplat_mouse.view WORKDIR/fits/SCENE
  python -m jaxsplat_mouse.view FILE.ply
      one of them; PLY files of other programs work too

Needs pip install 'jaxsplat-mouse[viewer]'. The page is served to this machine only; from elsewhere,
reach it through ssh -L 8080:localhost:8080 HOST. Ctrl-C ends it.

Exit status: 0 ended; 1 nothing to show; the reason in one line.
"""

from __future__ import annotations

import pathlib
import time

from absl import flags as absl_flags
from absl.flags import FlagValues

ARGUMENT = "PATH"


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  absl_flags.DEFINE_integer(
    "port",
    8080,
    "The port of the page; the next free one where it is taken.",
    lower_bound=0,
    flag_values=flags,
  )


def main(flags: FlagValues, path: str) -> int:
  """Shows fits until Ctrl-C; returns the exit status."""
  from jaxsplat_mouse.run.splat_viewer import SplatViewer, StoredFits

  viewer = SplatViewer(StoredFits(pathlib.Path(path)), flags.port)
  print(f"{viewer.url}  (Ctrl-C ends it)", flush=True)
  try:
    while True:
      time.sleep(3600)
  except KeyboardInterrupt:
    viewer.server.stop()
  return 0
