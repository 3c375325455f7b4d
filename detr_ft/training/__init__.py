"""Training: read `trainer.py` (the loop), `step.py` (a step), `step_loader.py` (its images), `optimizer.py`, `settings.py`.

`setup.py` builds these parts, `cuda_graphs.py` replaces the passes of a step on a GPU, `step_totals.py` makes a step
independent of the number of processes, `stopping.py` ends a run, `launch.py` joins its processes. The four folders may be
skipped: `monitor/` observes a run, `checkpoint/` saves and restores it, `failures/` repeats a failed step, `preflight/` tests
a run before it is long. `callbacks.py` has the interface for code of the user.
"""
