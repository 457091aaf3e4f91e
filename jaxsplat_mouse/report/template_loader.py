"""Loads the templates of the files that a run writes for people."""

from __future__ import annotations

import jinja2


def load_template(name: str) -> jinja2.Template:
  """Returns a template of the folder `templates`.

  HTML templates escape every value. A value that is missing raises an error.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxsplat_mouse.report", "templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template(name)
