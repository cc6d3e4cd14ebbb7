"""The part of a TensorMask that is exported: images in, raw outputs by name out.

A wrapper around the model's own methods; no arithmetic of the model is written twice. Decoding and NMS stay
outside. Masks come in two modes:

    windows  only the windows that score best, per level and window size: what an application needs. Memory
             grows with their number, not with the picture. The default.
    dense    the natural mask tensors of all windows: for study. In the paper's model one picture of
             800 x 1344 px has 144 million mask logits.

next: onnx_body.py
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tensormask_edu.errors import bad_input
from tensormask_edu.model import TensorMask
from tensormask_edu.network import NetworkOutput
from tensormask_edu.ops import swap_align2nat_windows

from . import contract

MaskMode = Literal["windows", "dense"]
MASK_MODES: tuple[MaskMode, ...] = ("windows", "dense")
LARGEST_TOPK = 3840  # TensorRT's limit


class RawGraph(nn.Module):
    """(N, 3, H, W) RGB in [0, 1], H and W multiples of `geometry.padding_px` -> tensors by name.

    Pixels beyond the picture must hold `padding_colour`: zero once normalised, as in training.

    Args:
        model: its weights are used as they are; put it in evaluation mode.
        masks: "windows" or "dense", see above.
        windows_per_level: how many windows per level and size have a mask; fewer where the grid is smaller.
            By default as many as the model keeps detections per image.
    """

    def __init__(
        self, model: TensorMask, masks: MaskMode = "windows", windows_per_level: int | None = None
    ) -> None:
        super().__init__()
        if masks not in MASK_MODES:
            raise bad_input("masks", " or ".join(MASK_MODES), repr(masks))
        if windows_per_level is None:
            windows_per_level = min(model.config.detections_per_image, LARGEST_TOPK)
        if not 1 <= windows_per_level <= LARGEST_TOPK:
            raise bad_input("windows_per_level", f"1 to {LARGEST_TOPK}, TensorRT's limit", windows_per_level)
        self.model, self.masks, self.windows_per_level = model, masks, windows_per_level

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        output = self.network_output(images)
        maps = {contract.logits(level): logits for level, logits in enumerate(output.logits)}
        maps |= {contract.deltas(level): deltas for level, deltas in enumerate(output.deltas)}
        return maps | (self.dense_masks(output) if self.masks == "dense" else self.window_masks(output))

    def network_output(self, images: Tensor) -> NetworkOutput:
        return self.model.network(self.model.normalise(images))

    def dense_masks(self, output: NetworkOutput) -> dict[str, Tensor]:
        """The natural mask tensors of all levels and sizes."""
        return {
            contract.masks(level, size_id): natural
            for level, sizes in enumerate(self.model.network.natural(output))
            for size_id, natural in enumerate(sizes)
        }

    def window_masks(self, output: NetworkOutput) -> dict[str, Tensor]:
        """Scores, places and masks of the best windows of each level and size."""
        named = {}
        for level, logits in enumerate(output.logits):
            for size_id, best in enumerate(self.best_class(logits)):
                scores, index = best_cells(best, self.windows_per_level)
                named[contract.window_scores(level, size_id)] = scores.sigmoid()
                named[contract.window_index(level, size_id)] = index
                named[contract.window_masks(level, size_id)] = self.masks_at(output, level, size_id, index)
        return named

    def best_class(self, logits: Tensor) -> tuple[Tensor, ...]:
        """The best class's logit of each window, per size: (N, A*K, H, W) -> A times (N, H, W)."""
        num_sizes = self.model.config.geometry.num_sizes
        return logits.unflatten(1, (num_sizes, -1)).amax(dim=2).unbind(1)

    def masks_at(self, output: NetworkOutput, level: int, size_id: int, index: Tensor) -> Tensor:
        """Natural mask logits (N, B, V, U) of the windows at `index` (N, B, 3)."""
        lam, pad_value = self.model.config.geometry.lams[level], self.model.config.pad_value
        values = swap_align2nat_windows(output.aligned[level][size_id], lam, index.flatten(0, 1), pad_value)
        return values.reshape(index.shape[0], index.shape[1], values.shape[1], values.shape[2])


def best_cells(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The B = min(count, H*W) cells of each image that score best.

    scores: (N, H, W) -> scores (N, B) descending, index (N, B, 3) int64 (n, y, x)
    """
    num, rows, columns = scores.shape
    best, position = scores.flatten(1).topk(torch.sym_min(count, rows * columns))
    y, x = torch.meshgrid(
        torch.arange(rows, device=scores.device), torch.arange(columns, device=scores.device), indexing="ij"
    )
    cell = torch.stack([y, x], dim=-1).flatten(0, 1)[position]
    image = torch.arange(num, device=scores.device)[:, None, None].expand(-1, cell.shape[1], 1)
    return best, torch.cat([image, cell], dim=2)


def padding_colour(model: TensorMask) -> tuple[float, ...]:
    """The RGB colour, in [0, 1], that is zero once normalised: what pads a picture to a multiple."""
    colour = [mean / model.config.pixel_scale for mean in model.config.pixel_mean]
    return tuple(colour[::-1] if model.config.bgr else colour)


def pad_to_multiple(model: TensorMask, images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1], extended at the right and bottom to multiples of `geometry.padding_px`."""
    multiple = model.config.geometry.padding_px
    num, _, height, width = images.shape
    padded = images.new_tensor(padding_colour(model)).view(1, 3, 1, 1)
    padded = padded.repeat(num, 1, -(-height // multiple) * multiple, -(-width // multiple) * multiple)
    padded[..., :height, :width] = images
    return padded
