"""Data sets: points, targets, and how they are read, scaled and described."""
