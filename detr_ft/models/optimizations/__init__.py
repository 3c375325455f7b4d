"""Optimizations of speed and memory: one module each, with `apply(model)` and `revert(model)`."""
