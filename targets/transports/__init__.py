"""Ways to a device: one file each, with `connect(target, root)`."""
