"""The parts around the flows for development and tests: a broker and a schema registry, without containers."""
