"""A TensorRT engine of the file: built, described, loaded."""
