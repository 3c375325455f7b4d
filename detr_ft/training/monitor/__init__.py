"""Observation of a run: log, display, evaluations, statistics of the matching, diagnosis."""
