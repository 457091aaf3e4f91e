"""Compiled programs, devices, threads, signals, progress: nothing here knows of scenes."""
