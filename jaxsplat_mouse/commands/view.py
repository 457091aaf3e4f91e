"""A fit in the browser: splats, the cameras it was made from, and their photographs.

  python -m jaxsplat_mouse.view WORKDIR
      all fits of a run, one at a time

  python -m jaxsplat_mouse.view WORKDIR/fits/SCENE
  python -m jaxsplat_mouse.view FILE.ply
      one of them; a PLY of any other program too

Needs pip install 'jaxsplat-mouse[viewer]'. The page is served to this machine only; from elsewhere,
ssh -L 8080:localhost:8080 HOST brings it to you. Ctrl-C ends it.

Exit status: 0 ended; 1 nothing to show, said in one line.
"""

from __future__ import annotations

import pathlib
import time

from absl import flags

from jaxsplat_mouse.commands import console
from jaxsplat_mouse.run.splat_viewer import Content, Viewer

_PORT = flags.DEFINE_integer("port", 8080, "Of the page; the next free one where it is taken.", 0)


def main(path: str) -> int:
  """Shows until Ctrl-C; the exit status."""
  viewer = Viewer(Content(pathlib.Path(path)), _PORT.value)
  print(f"{viewer.url}  (Ctrl-C ends it)", flush=True)
  try:
    while True:
      time.sleep(3600)
  except KeyboardInterrupt:
    viewer.server.stop()
  return 0


def start() -> None:
  """Parses flags and runs the command."""
  console.run(main, str(__doc__), ["port"], positional="PATH")
