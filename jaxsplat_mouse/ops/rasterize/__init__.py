"""The operation that composites splats to images; see `api.rasterize`."""
