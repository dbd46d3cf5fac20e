"""Jobs, their files, and what they cost."""
