"""A folder with a model file and all that is needed to run it: made, checked, judged."""
