"""TFLite: what a file says of itself."""
