"""Writers: each states its guarantee."""
