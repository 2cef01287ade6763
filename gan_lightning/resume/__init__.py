"""Stopping and resuming runs: checkpoints, signals, random states, jobs of a scheduler."""
