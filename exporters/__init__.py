"""One file per format: from a torch network to a file that a device's runtime loads."""
