"""Kernels: one folder per operation, with several implementations each."""
