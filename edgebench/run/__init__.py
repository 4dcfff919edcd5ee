"""From a profile or bundles to records: planned, prepared, measured."""
