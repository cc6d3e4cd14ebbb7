"""Checkpoints, published weights, and a reader of pickles that runs nothing."""
