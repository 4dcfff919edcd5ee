"""Raw readings into numbers. Pure functions."""
