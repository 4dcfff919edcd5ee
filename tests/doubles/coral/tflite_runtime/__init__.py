"""tflite-runtime 2.5.0.post1 as Coral's apt brings it, as far as edgebench asks; computes with the interpreter at hand."""

__version__ = "2.5.0.post1"
__git_version__ = "v2.5.0"
