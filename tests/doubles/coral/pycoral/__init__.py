"""pycoral 2.0.0, as far as edgebench asks."""
