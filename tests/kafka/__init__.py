"""Tests on a real broker and a real schema registry, which they start themselves."""
