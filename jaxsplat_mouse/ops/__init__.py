"""Kernels: one operation a folder, several implementations each; `batching` folds mapped axes."""
