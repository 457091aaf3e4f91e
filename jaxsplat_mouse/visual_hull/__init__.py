"""Silhouettes -> visual hull -> surface points, normals, colours -> initial Gaussians.

A point is in the hull as far as every photograph that has it in frame shows the animal there: the
field is the smallest bilinearly sampled alpha over the views, and its 0.5 level is the surface
(Laurentini 1994, with soft silhouettes in place of binary voxels).

    build_hull(scene)  ->  Hull  ->  initial_gaussians(hull, key, 20_000, model="2dgs")
                                 ->  hull_alpha(hull, cameras), silhouettes in unseen cameras
"""
