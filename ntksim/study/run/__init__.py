"""Running a study: Snakemake, clusters, locks, checks of files, and verification by recomputation."""
