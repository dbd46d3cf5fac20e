"""What a job computes."""
