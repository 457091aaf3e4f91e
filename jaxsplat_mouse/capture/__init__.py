"""Raw captures: calibrations of many formats, videos and masks become calibrated scene folders."""
