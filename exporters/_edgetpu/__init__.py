"""Edge TPU: the compiler, its log, and what it places."""
