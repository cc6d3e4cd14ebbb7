"""One page of training, its batches, its journal."""
