"""Mask R-CNN: boxes first, then a small mask inside each box.

He, Gkioxari, Dollár, Girshick 2017 (arXiv 1703.06870). What the paper says:

- Two stages: a region proposal network, then per region (RoI) class, box and mask in parallel.
  The mask loss is the mean logistic loss of m x m bins, of the *true class's* mask alone: what
  an object is and where it is are decided apart.
- RoIAlign: neither the region nor its bins are rounded; a bin is the mean of 2 x 2 bilinear
  points. RoIPool rounds both to cells and takes the maximum: what a mask loses by that is up to
  half a cell.
- With FPN: anchors of one size per level, aspects 1:2, 1:1, 2:1; boxes from 7 x 7 by two linear
  layers; masks from 14 x 14 by four 3x3 convolutions and one transposed, 28 x 28. A region
  belongs to level floor(4 + log2(side / 224)).
- Positive regions have IoU >= .5, one to three negatives; 512 a picture. Test: 1000 proposals,
  suppression, masks of the best 100 boxes, resized to their boxes.
- COCO minival, mask AP: softmax over classes 24.8, sigmoid 30.3 (R50-C4); class-agnostic masks
  29.7, class-specific 30.3; RoIPool 26.9, RoIAlign 30.3, and at AP75 26.4 against 31.5.
  With an R50-FPN 33.6.

All parts are torchvision's. Where this file deviates: a small body and pyramid from scratch
(`detector/backbone.py`, strides 4, 8, 16); two anchor sizes per level, from 10 px; 32 regions a
picture, box layers of 128, two mask convolutions of 32; masks are drawn into their real boxes,
where torchvision rounds those to pixels; AdamW. Softmax masks, which torchvision has not, have
the paper's multinomial loss, over the classes and a background.

next: ancestors/tensormask.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import fastrcnn_loss, project_masks_on_boxes
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, roi_pool
from torchvision.ops.poolers import LevelMapper

from ..base.errors import require
from ..config import InputConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.truth import Truth
from ..detector.backbone import Backbone
from .fit import AUGMENT, FILE_SIZE, Detector, Drawn, Proposals, Sample, fit
from .pyramid import MEAN, STD, paste_windows

CHANNELS = 32  # of the pyramid and the mask head
STRIDES_PX = (4, 8, 16)
SMALLEST_PX = 10.0  # the finest level's smaller square; half an octave to the next
BOX_BINS, MASK_BINS = 7, 14  # what is cut out for boxes and for masks; masks come out doubled
# The side from which a region belongs to the level of stride 16: the paper's 224 px are of
# pictures of 800.
CANONICAL_PX, CANONICAL_LEVEL = 112, 4

Pooling = Literal["align", "pool"]
Masks = Literal["sigmoid", "softmax", "agnostic"]

RECIPE = TrainConfig(batch_size=4, lr=2e-3, augment=AUGMENT)


class Pyramid(nn.Module):
    """Our body and FPN as torchvision wants a backbone: maps by name."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone("tiny", CHANNELS, len(STRIDES_PX))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # (N, 3, H, W) -> per level (N, 32, H / stride, W / stride)
        return {str(level): m for level, m in enumerate(self.backbone(images))}


class MultiScaleRoIPool(nn.Module):
    """RoIPool on a pyramid, each region on its own level: what torchvision has as RoIAlign."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.output_size = (bins, bins)
        finest = STRIDES_PX[0].bit_length() - 1  # stride 4 is level 2
        coarsest = finest + len(STRIDES_PX) - 1
        self.level = LevelMapper(finest, coarsest, CANONICAL_PX, CANONICAL_LEVEL)

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Regions of all images one after the other: (R, C, bins, bins)."""
        counts = torch.tensor([len(box) for box in boxes])
        image = torch.arange(len(boxes)).repeat_interleave(counts)  # (R,)
        regions = torch.cat([image[:, None], torch.cat(boxes)], dim=1)  # (R, 5)
        level = self.level(boxes)  # (R,)
        out = regions.new_zeros(len(regions), maps["0"].shape[1], *self.output_size)
        for number, stride_px in enumerate(STRIDES_PX):
            here = (level == number).nonzero()[:, 0]
            pooled = roi_pool(maps[str(number)], regions[here], self.output_size, 1 / stride_px)
            out = out.index_copy(0, here, pooled)
        return out


class AgnosticMasks(MaskRCNNPredictor):
    """One mask for all classes: (R, C, 14, 14) -> the same 28 x 28 logits K + 1 times."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(CHANNELS, CHANNELS, 1)
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).expand(-1, self.num_classes, -1, -1)


class SoftmaxMasks(MaskRCNNPredictor):
    """Classes and the background, class 0, compete for each bin.

    (R, C, 14, 14) -> (R, K + 1, 28, 28), in training logits of a softmax; in evaluation each
    class's lead over the best of the others, so that a bin with the largest share is inside.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(CHANNELS, CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)  # (R, K + 1, 28, 28)
        if self.training:
            return logits
        first, second = logits.topk(2, dim=1).values.split(1, dim=1)  # (R, 1, 28, 28) each
        return logits - torch.where(logits == first, second, first)


def multinomial_loss(logits: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy of every bin: the object's class inside it, the background beside it.

    Args:
        logits: (R, K + 1, 28, 28) of a softmax over classes.
        labels: (R,) int64, 1 to K. inside: (R, 28, 28) in [0, 1], a bin's share in the object.
    """
    if not len(labels):  # a batch of empty pictures
        return logits.sum()
    log_p = logits.log_softmax(dim=1)
    own = log_p[torch.arange(len(labels)), labels]  # (R, 28, 28)
    return -(inside * own + (1 - inside) * log_p[:, 0]).mean()


class AsItIs(GeneralizedRCNNTransform):
    """Pictures come in their final size: normalised and padded, not resized."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def _pooler(pooling: Pooling, bins: int) -> nn.Module:
    if pooling == "pool":
        return MultiScaleRoIPool(bins)
    names = [str(level) for level in range(len(STRIDES_PX))]
    scale = {"canonical_scale": CANONICAL_PX, "canonical_level": CANONICAL_LEVEL}
    return MultiScaleRoIAlign(names, bins, sampling_ratio=2, **scale)


def _mask_predictor(masks: Masks, num_classes: int) -> nn.Module:
    if masks == "agnostic":
        return AgnosticMasks(num_classes)
    if masks == "softmax":
        return SoftmaxMasks(num_classes)
    return MaskRCNNPredictor(CHANNELS, CHANNELS, num_classes)


def torchvision_model(
    num_classes: int, pooling: Pooling, masks: Masks, smallest_px: float
) -> TorchvisionMaskRCNN:
    """Torchvision's model of small parts; `num_classes` counts the background."""
    sizes_px = tuple(
        (smallest_px * 2**level, smallest_px * 2 ** (level + 0.5))
        for level in range(len(STRIDES_PX))
    )
    made = TorchvisionMaskRCNN(
        Pyramid(),
        rpn_anchor_generator=AnchorGenerator(sizes_px, ((0.5, 1.0, 2.0),) * len(sizes_px)),
        rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=64,
        rpn_pre_nms_top_n_test=300, rpn_post_nms_top_n_test=200,
        box_head=TwoMLPHead(CHANNELS * BOX_BINS**2, 128),
        box_predictor=FastRCNNPredictor(128, num_classes),
        box_batch_size_per_image=32,
        box_score_thresh=0.0, box_nms_thresh=1.0,  # what is a duplicate, the judge says
        mask_head=MaskRCNNHeads(CHANNELS, (CHANNELS, CHANNELS), 1),
        mask_predictor=_mask_predictor(masks, num_classes),
    )  # fmt: skip
    made.transform = AsItIs(1, 1, [MEAN] * 3, [STD] * 3)
    heads = made.roi_heads
    heads.box_roi_pool = _pooler(pooling, BOX_BINS)
    heads.mask_roi_pool = _pooler(pooling, MASK_BINS)
    return made


def multinomial_losses(
    model: TorchvisionMaskRCNN, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What torchvision's model returns in training, but for the mask loss.

    Its own heads know the logistic one alone, so their steps are taken here one by one.
    """
    heads = model.roi_heads
    batch, targets = model.transform(images, targets)
    maps, sizes = model.backbone(batch.tensors), batch.image_sizes
    regions, losses = model.rpn(batch, maps, targets)
    regions, matched, labels, deltas = heads.select_training_samples(regions, targets)
    known = heads.box_predictor(heads.box_head(heads.box_roi_pool(maps, regions, sizes)))
    losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(*known, labels, deltas)

    positive = [label > 0 for label in labels]  # only they have masks
    regions, matched, labels = (
        [values[rows] for values, rows in zip(column, positive, strict=True)]
        for column in (regions, matched, labels)
    )
    inside = [
        project_masks_on_boxes(target["masks"], boxes, number, 2 * MASK_BINS)  # (r, 28, 28)
        for target, boxes, number in zip(targets, regions, matched, strict=True)
    ]
    features = heads.mask_head(heads.mask_roi_pool(maps, regions, sizes))  # (R, 32, 14, 14)
    logits = heads.mask_predictor(features)  # (R, K + 1, 28, 28)
    losses["loss_mask"] = multinomial_loss(logits, torch.cat(labels), torch.cat(inside))
    return losses


class MaskRCNN(Detector):
    """A small Mask R-CNN of `num_classes` classes, the background not counted."""

    def __init__(
        self,
        num_classes: int,
        pooling: Pooling = "align",
        masks: Masks = "sigmoid",
        smallest_px: float = SMALLEST_PX,
    ) -> None:
        super().__init__()
        require(num_classes >= 1, "num_classes", "at least 1", num_classes)
        require(pooling in ("align", "pool"), "pooling", "'align' or 'pool'", repr(pooling))
        known = masks in ("sigmoid", "softmax", "agnostic")
        require(known, "masks", "'sigmoid', 'softmax' or 'agnostic'", repr(masks))
        self.masks = masks
        self.model = torchvision_model(num_classes + 1, pooling, masks, smallest_px)

    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        # Which regions are taught torchvision draws from torch's own generator, which is
        # seeded once, in `train`.
        images = [image for image, _ in samples]
        targets = [
            {
                "boxes": truth["boxes"],
                "labels": truth["labels"] + 1,  # 0 is the background
                "masks": truth["masks"].to(torch.uint8),
            }
            for _, truth in samples
        ]
        if self.masks == "softmax":
            return multinomial_losses(self.model, images, targets)
        return self.model(images, targets)

    @torch.inference_mode()
    def propose(self, image: Tensor, count: int) -> Proposals:
        model, heads = self.model, self.model.roi_heads
        batch, _ = model.transform([image])
        maps = model.backbone(batch.tensors)
        heads.detections_per_img = count
        regions, _ = model.rpn(batch, maps)
        found = heads(maps, regions, batch.image_sizes)[0][0]
        # (D, 1, 28, 28) probabilities -> logits, for our drawing
        logits = torch.logit(found["masks"][:, 0], eps=1e-6)
        masks = paste_windows([logits], [found["boxes"]], (image.shape[1], image.shape[2]))
        return Proposals(found["boxes"], found["scores"], found["labels"] - 1, masks)

    @torch.inference_mode()
    def at_truth(self, image: Tensor, truth: Truth) -> Drawn:
        heads, boxes = self.model.roi_heads, truth["boxes"]
        batch, _ = self.model.transform([image])
        maps = self.model.backbone(batch.tensors)
        features = heads.mask_roi_pool(maps, [boxes], batch.image_sizes)  # (m, 32, 14, 14)
        every = heads.mask_predictor(heads.mask_head(features))  # (m, K + 1, 28, 28)
        number = torch.arange(len(boxes))
        logits = every[number, truth["labels"] + 1]  # (m, 28, 28)
        target = project_masks_on_boxes(truth["masks"], boxes, number, 2 * MASK_BINS)
        size = (image.shape[1], image.shape[2])
        sure = torch.logit(target, eps=1e-6)
        masks, reachable = (paste_windows([x], [boxes], size) for x in (logits, sure))
        return Drawn(number, masks, reachable)


def train(
    dataset: CocoFolder,
    config: TrainConfig = RECIPE,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
    pooling: Pooling = "align",
    masks: Masks = "sigmoid",
    smallest_px: float = SMALLEST_PX,
) -> MaskRCNN:
    """A Mask R-CNN trained on any COCO folder.

    Args:
        pooling, masks: RoIAlign or RoIPool; what a mask's logits mean.
        smallest_px: the side of the smallest anchor.

    Raises:
        InputError, FloatingPointError: see `fit`.
    """
    build = partial(MaskRCNN, len(dataset.class_names), pooling, masks, smallest_px)
    return fit(build, dataset, config, input_config, progress)
