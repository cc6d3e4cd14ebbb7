"""The nouns: levels, units, windows; every stride and side.

A *level* k of the pyramid has a grid of *cells*, `strides_px[k]` pixels apart. At each cell
sits one *window* per window size, which `size_id` numbers: a square, or a rectangle where asked
for, in which the model predicts one mask, a grid of *bins*. The windows of cell (y, x) on level
k are centred at pixel (x * stride, y * stride): the corner convention of the official code.

Two units (paper, section 3): `sigma_hw` is the distance in pixels between neighbouring cells,
`sigma_vu` the distance between neighbouring mask bins. In the tensor bipyramid (section 3)
every level's bins are 4 px (the finest stride), so a window on level k has `lams[k] = 2**k`
times as many bins per side as one on level 0.

next: base/errors.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .base.errors import bad_input

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Side = int | tuple[int, int]  # of a window in bins: of a square, or (V, U) of a rectangle
MOST_LEVELS, MOST_SIZES = 8, 64  # of a pyramid; window sizes
LARGEST_PX, LARGEST_BINS = 256, 128  # of the finest stride; of a window's side at level 0


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `length`."""
    return -(-length // multiple) * multiple


def sizes_px(images: Iterable[Tensor]) -> list[tuple[int, int]]:
    """(height, width) of each image (..., H, W)."""
    return [(image.shape[-2], image.shape[-1]) for image in images]


@dataclass(frozen=True)
class Geometry:
    """Where windows sit and how large their masks are.

    Args:
        strides_px: pixels between cells, one per level, each twice the one before.
        sides_bins: window sides in bins at level 0, ascending, one per window size; (V, U),
            height and width, for one that is no square.
        bipyramid: True: bins stay `strides_px[0]` px on every level (tensor bipyramid);
            False: bins grow with the stride (feature pyramid, the paper's baseline).
    """

    strides_px: tuple[int, ...]
    sides_bins: tuple[Side, ...]
    bipyramid: bool = True

    def __post_init__(self) -> None:
        self._check_extents()
        doubled = tuple(self.strides_px[0] * 2**k for k in range(len(self.strides_px)))
        if self.strides_px != doubled:
            raise bad_input(
                "strides_px", f"each stride twice the one before: {doubled}", self.strides_px
            )
        by_length = sorted(set(self.shapes_bins), key=lambda shape: (max(shape), shape))
        if not self.sides_bins or list(self.shapes_bins) != by_length:
            raise bad_input(
                "sides_bins", "one or more different sizes, ascending", self.sides_bins
            )

    def _check_extents(self) -> None:
        """Raise InputError for what no picture and no memory has room for."""
        strides, sides = self.strides_px, [side for shape in self.shapes_bins for side in shape]
        if not strides or not 0 < strides[0] <= LARGEST_PX or len(strides) > MOST_LEVELS:
            expected = f"1 to {MOST_LEVELS} strides, the first of 1 to {LARGEST_PX} px"
            raise bad_input("strides_px", expected, strides)
        if len(self.sides_bins) > MOST_SIZES or not all(0 < s <= LARGEST_BINS for s in sides):
            expected = f"at most {MOST_SIZES} sizes, sides of 1 to {LARGEST_BINS} bins"
            raise bad_input("sides_bins", expected, self.sides_bins)

    @property
    def num_levels(self) -> int:
        return len(self.strides_px)

    @property
    def num_sizes(self) -> int:
        """Windows per cell (A in the paper's tables)."""
        return len(self.sides_bins)

    @property
    def shapes_bins(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns (V, U) of a window's bins at level 0, one per window size."""
        return tuple((s, s) if isinstance(s, int) else s for s in self.sides_bins)

    @property
    def lams(self) -> tuple[int, ...]:
        """Per level, how many times as many bins per side a window has as on level 0.

        It is the `lam` of the level's op `swap_align2nat` (`ops/`): before the op sigma_vu is
        lam * sigma_hw.
        """
        return tuple(s // self.strides_px[0] if self.bipyramid else 1 for s in self.strides_px)

    def bin_px(self, level: int) -> int:
        """sigma_vu of the finished (natural) mask, pixels per bin."""
        return self.strides_px[0] if self.bipyramid else self.strides_px[level]

    def side_px(self, level: int, size_id: int) -> int:
        """Side of a window in pixels, the longer one."""
        return max(self.shapes_bins[size_id]) * self.strides_px[level]

    def side_bins(self, level: int, size_id: int) -> int:
        """Side of a window's finished mask in bins, the longer one."""
        return max(self.mask_bins(level, size_id))

    def mask_bins(self, level: int, size_id: int) -> tuple[int, int]:
        """Rows and columns (lam*V, lam*U) of a window's finished mask."""
        rows, columns = self.shapes_bins[size_id]
        return rows * self.lams[level], columns * self.lams[level]

    @property
    def padding_px(self) -> int:
        """Images are padded (right, bottom) to a multiple of this many pixels."""
        return min(self.strides_px[-1], 32)

    def padded_px(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The one size (height, width) to which a batch of images of these sizes is padded."""
        height, width = (
            round_up(max(extents), self.padding_px) for extents in zip(*sizes, strict=True)
        )
        return height, width

    def grid_sizes(self, height_px: int, width_px: int) -> list[tuple[int, int]]:
        """Cells (rows, columns) per level for a padded image: ceil(size / stride)."""
        return [(-(-height_px // s), -(-width_px // s)) for s in self.strides_px]

    def windows(
        self, grid_sizes: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
    ) -> Windows:
        """All windows of one image, M = sum of rows * columns * sizes.

        They stand in the one order used everywhere: level, then y, then x, then size_id, which
        runs fastest.
        """
        level, y, x, size_id = self.cells(grid_sizes, device).unbind(1)  # (M, 4) -> (M,) each
        box_px, stride_px = self.boxes_px(level, y, x, size_id), self._strides(level)
        return Windows(box_px, level, y, x, size_id, stride_px)

    def cells(
        self, grid_sizes: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Where the windows of `windows` stand: (M, 4) int64, rows (level, y, x, size_id)."""
        import torch  # here, so that a geometry can be read where there is no torch

        parts = []
        for number, (rows, columns) in enumerate(grid_sizes):
            extents = (rows, columns, self.num_sizes)
            cells = torch.meshgrid(  # y, x and size_id, each (rows, columns, A)
                *(torch.arange(n, device=device) for n in extents), indexing="ij"
            )
            level = torch.full_like(cells[0], number)
            parts.append(torch.stack([level, *cells], dim=-1).reshape(-1, 4))  # (M_level, 4)
        return torch.cat(parts)

    def boxes_px(self, level: Tensor, y: Tensor, x: Tensor, size_id: Tensor) -> Tensor:
        """The windows there, (...) four times -> (..., 4) float32 xyxy."""
        import torch

        stride = self._strides(level)
        shape = torch.tensor(self.shapes_bins, device=level.device)[size_id]  # (..., 2): V, U
        half_height, half_width = (shape * stride[..., None] / 2).unbind(-1)  # (...) each
        cx, cy = x * stride, y * stride  # no half cell added: the official corner convention
        corners = [cx - half_width, cy - half_height, cx + half_width, cy + half_height]
        return torch.stack(corners, dim=-1).float()

    def _strides(self, level: Tensor) -> Tensor:
        return level.new_tensor(self.strides_px)[level]

    def layout(
        self, sizes: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
    ) -> Layout:
        """Cells and windows of a batch of images of these sizes (height, width).

        The images may be padded already: padding a padded size changes nothing.
        """
        grid_sizes = self.grid_sizes(*self.padded_px(sizes))
        return Layout(grid_sizes, self.windows(grid_sizes, device))

    def window_index(
        self,
        grid_sizes: Sequence[tuple[int, int]],
        level: Tensor | int,
        y: Tensor,
        x: Tensor,
        size_id: Tensor,
    ) -> Tensor:
        """Where the window of cell (y, x) stands in the order of `windows`."""
        import torch

        rows, columns = torch.tensor(grid_sizes, device=y.device).unbind(1)  # (L,) each
        before = (rows * columns).cumsum(0) - rows * columns  # cells of finer levels
        return (before[level] + y * columns[level] + x) * self.num_sizes + size_id


@dataclass(frozen=True)
class Layout:
    """Where the cells and windows of a padded batch lie, the same for each of its images.

    grid_sizes: cells (rows, columns) per level.
    windows: all M windows of an image, in the order of `Geometry.windows`.
    """

    grid_sizes: list[tuple[int, int]]
    windows: Windows


@dataclass(frozen=True)
class Windows:
    """M windows of one padded image.

    box_px: (M, 4) float32, xyxy in padded-input pixels, may reach beyond the image.
    level, y, x, size_id: (M,) int64, the cell and the window size.
    stride_px: (M,) int64, the level's stride (sigma_hw).
    """

    box_px: Tensor
    level: Tensor
    y: Tensor
    x: Tensor
    size_id: Tensor
    stride_px: Tensor

    def __len__(self) -> int:
        return len(self.level)

    def __getitem__(self, index: Tensor) -> Windows:
        """The windows at `index`, a boolean mask or an index tensor."""
        return Windows(*(getattr(self, field.name)[index] for field in fields(self)))

    def groups(self) -> Iterator[tuple[int, int, Tensor]]:
        """(level, size_id, positions (P,)) of the windows that share a mask size."""
        num_sizes = int(self.size_id.max()) + 1 if len(self) else 1
        group = self.level * num_sizes + self.size_id  # one number per (level, size_id)
        for value in group.unique().tolist():  # ascending: by level, then by size
            where = (group == value).nonzero().squeeze(1)  # (P,)
            yield int(self.level[where[0]]), int(self.size_id[where[0]]), where
