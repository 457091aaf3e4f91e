"""Templates of the files that a run writes for people; `load` reads them."""

from __future__ import annotations

import jinja2


def load(name: str) -> jinja2.Template:
  """A template of this folder; in HTML every value is escaped, and a missing one is an error."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxsplat_mouse.report", "templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template(name)
