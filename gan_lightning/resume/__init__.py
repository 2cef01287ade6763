"""Stopping and going on: checkpoints, signals, random states, the scheduler's jobs."""
