"""Training of a model with a criterion, in the order in which to read it.

`trainer.py` (the loop), `step.py` (an optimizer step), `step_loader.py` (its images), `optimizer.py`, `settings.py`. As needed:
`setup.py` (builds these parts), `loader_workers.py`, `step_totals.py`, `stopping.py`, `launch.py`, `ema.py`, `cuda_graphs.py`,
`callbacks.py`. A reader may skip the folders: `monitor/` observes a run, `checkpoint/` saves and restores it, `failures/`
repeats a failed step, `preflight/` tests a run before it is long.
"""
