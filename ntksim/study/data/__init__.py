"""Points and targets."""
