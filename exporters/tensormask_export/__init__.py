"""From a trained TensorMask to ONNX and TensorRT; imports tensormask_edu, never the reverse."""
