"""A Linux userland for devices that have none: the GNU C library and Python, from Debian packages of pinned versions."""
