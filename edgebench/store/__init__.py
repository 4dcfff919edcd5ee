"""Records on disk: written, read, found, checked, merged and cleaned up."""
