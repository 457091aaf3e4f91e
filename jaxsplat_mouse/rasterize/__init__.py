"""One operation, several implementations: splats in, composited image out. See `api.rasterize`."""

from jaxsplat_mouse.rasterize.api import rasterize as rasterize
from jaxsplat_mouse.rasterize.api import suited as suited
from jaxsplat_mouse.rasterize.base import Image as Image
from jaxsplat_mouse.rasterize.base import Options as Options
