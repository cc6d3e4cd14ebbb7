"""TensorMask (Chen, Girshick, He, Dollár 2019): a course, a package, a deployment exporter.

Importing this package loads nothing else: `tensormask_edu.reference` needs NumPy only,
`tensormask_edu.ops` adds PyTorch, `tensormask_edu.detector.model` adds torchvision.

next: geometry.py
"""

__version__ = "0.1.0"
