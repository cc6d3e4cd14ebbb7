"""From a trained TensorMask to ONNX and TensorRT. May import tensormask_edu, never the
reverse."""
