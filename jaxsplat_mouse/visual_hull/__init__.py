"""Silhouettes -> visual hull -> surface points, normals, colours -> initial Gaussians.

The hull is the largest solid that all silhouettes allow (Laurentini 1994). Its field at a point is
the smallest alpha, sampled bilinearly, over the views that have the point in frame; the field's 0.5
level is the surface, so soft silhouettes place it more finely than binary voxels would.

    build_hull(scene)  ->  Hull  ->  initial_gaussians(hull, key, 20_000, model="2dgs")
                                 ->  hull_alpha(hull, cameras), its silhouettes in any cameras
"""
