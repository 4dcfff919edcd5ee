"""What pycoral offers beside its pipelines."""
