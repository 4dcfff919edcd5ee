"""Records → tables; pure functions."""
