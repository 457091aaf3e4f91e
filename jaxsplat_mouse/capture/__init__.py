"""Recordings in: a calibration, videos and masks become scene folders."""
