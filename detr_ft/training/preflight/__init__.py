"""Tests before a long run: memory, overfitting a batch, speed."""
