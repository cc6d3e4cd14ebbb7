"""A trained model as one ONNX file, and that file read again."""
