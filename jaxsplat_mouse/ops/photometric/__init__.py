"""L1 and structural similarity of a render and a photograph: XLA anywhere, Pallas on CUDA."""
