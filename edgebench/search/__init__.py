"""Ways to make a model smaller, tried one after the other on the device itself: a search of all of them, or a grid of options."""
