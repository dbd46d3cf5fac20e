"""From tables to figures, sentences and pages."""
