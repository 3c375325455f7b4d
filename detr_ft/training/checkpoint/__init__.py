"""Checkpoints: the state of a run, and folders that are complete even if the process is killed."""
