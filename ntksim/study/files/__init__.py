"""Bytes on disk: atomic, sealed, with their provenance."""
