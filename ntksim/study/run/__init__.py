"""Running a study: Snakemake, clusters, locks, faults of files, and recomputation."""
