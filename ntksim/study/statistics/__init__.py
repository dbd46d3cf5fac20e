"""Statistics over seeds: from the files of the shards to the tables."""
