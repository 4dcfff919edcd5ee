"""One YAML file per kind of device."""
