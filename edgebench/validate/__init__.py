"""Whether a file can be trusted in a clinic: decisions, probabilities, groups of patients, and readers with it."""
