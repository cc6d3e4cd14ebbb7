"""Ship: ONNX, TensorRT engines, proof that they compute the same."""
