"""Python environments of our own on the device."""
