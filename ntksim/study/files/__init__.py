"""Files on disk: atomic writes, checksums, provenance, and digests of code."""
