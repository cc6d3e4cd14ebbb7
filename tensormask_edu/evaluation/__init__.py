"""COCO scores, and the ceiling that windows set."""
