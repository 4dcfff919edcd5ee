"""ONNX: mixed precision."""
