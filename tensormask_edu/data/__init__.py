"""Pictures with instances: the overlap world, any COCO folder, augmentation."""
