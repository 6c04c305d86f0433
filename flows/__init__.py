"""The shell: the only place where domain, schemas, sources and sinks meet."""
