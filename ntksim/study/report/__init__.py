"""Figures, sentences and pages that are made from tables."""
