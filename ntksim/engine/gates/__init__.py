"""Gates of kinked activations: what training does at their kinks, and the algebra of many that are held."""
