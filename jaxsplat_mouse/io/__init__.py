"""Files to arrays and back: PLY, images, MATLAB, HDF5 and pickles; atomic writes; value checks."""
