"""One device: connected, inspected, set up, and measured on."""
