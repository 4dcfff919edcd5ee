"""Which nodes should compute in INT8, searched on the device itself."""
