"""Failed steps: a capsule with everything of the step, and its repetition on a CPU."""
