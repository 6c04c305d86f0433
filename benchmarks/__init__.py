"""Measurements: CPU-seconds per million events and peak memory, compared side by side in one run."""
