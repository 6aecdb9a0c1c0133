"""A run's data in the formats of other tools: one module a format, `sets` reads for all."""
