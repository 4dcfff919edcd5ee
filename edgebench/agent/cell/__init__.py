"""One pass of a cell in a process of its own."""
