"""Core ML: packages read back, and their programs executed in torch."""
