"""The study: configuration, sharding, stages, tables and figures around the engine."""
