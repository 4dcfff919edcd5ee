"""A bundle behind HTTP: the same file, runtime and preprocessing as on a device, asked by others."""
