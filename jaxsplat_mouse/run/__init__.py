"""The whole job on disk: scenes in, fits, a dataset, a report. Plain Python around pure functions.

    run(config, workdir)  reads scenes, fits them in batches, renders, writes, and can be stopped
                          at any moment: the same call goes on where the last one was.

What happens to a scene stands in one module each: `prepare` (read, canonical frame, hull),
`fitting` (a batch on the device, with checkpoints), `outputs` (renders, dataset, metrics).
"""
