"""Engines: built and run through TensorRT's own library, or by its program."""
