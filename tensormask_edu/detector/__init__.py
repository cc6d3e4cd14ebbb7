"""The paper: picture to detections, and what training needs of it."""
