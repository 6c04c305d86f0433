"""The commands, one module each: ``run(options) -> exit code``."""
