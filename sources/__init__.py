"""Readers: positions, batches, and what lies below retention."""
