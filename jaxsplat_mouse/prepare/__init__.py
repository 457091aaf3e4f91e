"""Raw captures in: a calibration, videos and masks become scene folders.

`job.run` is the whole of it, frame by frame with all cameras in step; `__main__` is its command.
"""
