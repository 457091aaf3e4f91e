"""The whole job on disk: scenes in; fits, a dataset and a report out. A stopped run continues.

    job.run(config, workdir)

`job` contains the order of the work: read the settings, lock the workdir, compare the settings with
its `config.json`, find finished scenes, sort the rest into batches, compute them, write lists and
report.

The way of one scene, with the carrier that each step returns:

    dataset.sources  Source        where a scene comes from
    scene_input      SceneInput    photographs, then canonical frame, hull and first Gaussians
    batches          FitState      scenes of a batch, cropped and stacked; `fit.driver` fits them
    fit_store        SavedFit      a fit in `fits/SCENE`
    outputs          SceneRenders  images and maps that are rendered of it
    outputs          SceneRecord   the manifest line of a scene whose files are written

    order     job, engine (interface), execution (choice of engine), run_events, closing
    settings  settings, config_files, config_keys, config_schema
    disk      workdir, ledger, batches, fit_store, recording_scales
    devices   worker (one process), fit_progress, renders, outputs, quality_scores; frame_order and
              nearness (warm starts); ray_cluster, ray_pool, ray_tasks, ray_worker (many processes)
    after     evaluation, fit_mesh, mesh_files, render_folder, splat_viewer
"""
