"""TensorRT: operators by version, and quantization."""
