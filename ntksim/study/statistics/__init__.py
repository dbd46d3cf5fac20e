"""From shards to tables."""
