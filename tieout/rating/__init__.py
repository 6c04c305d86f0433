"""Prices: one file per model, one place for the order of what a price holds, the kernel and the event-by-event way."""
