"""Fitting Gaussians to the views of a scene.

Everything is a pure function of arrays. One scene is a `FitState` and a `Scene`; a batch is the
same pytrees with a leading axis, and `run_chunk` is the vmap of a scan of `step` over it. A fit
is a list of `Stage`s, coarse to fine; within a stage shapes never change.
"""
