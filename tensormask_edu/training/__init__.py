"""The loop on a page, its batches, its journal."""
