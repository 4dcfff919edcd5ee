"""Folders of ONNX Runtime GenAI."""
