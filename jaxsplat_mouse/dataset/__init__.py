"""Datasets out: scenes in FaceLift's format, lists, manifest, and the sources they come from."""
