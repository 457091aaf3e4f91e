"""Compiled programs, checkpoints, devices, threads, signals, progress; independent of scenes."""
