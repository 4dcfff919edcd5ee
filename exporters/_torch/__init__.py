"""torch: what a file says of itself."""
