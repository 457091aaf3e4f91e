"""Splats in, composited images out: one operation, several implementations; see `api.rasterize`."""
