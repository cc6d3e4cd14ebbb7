"""The paper: picture to detections, and what training needs of it.

In the order of reading: boxes, backbone, heads, network, targets, losses, inference, model.
"""
