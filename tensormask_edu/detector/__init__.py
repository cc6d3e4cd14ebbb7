"""The paper: picture to detections, and what training needs of it.

In the order of reading: boxes, backbone, heads, network, targets, losses, inference, model.
"""

from ..base.packages import import_torchvision

import_torchvision()
