"""The exported detector: images in, a fixed number of detections per image out, in one graph.

It is `model.detections` in shapes that do not depend on the data, as TensorRT needs them; for
other runtimes lists are cut to what the data holds (`leading.py`). The model's own methods are
called where they can be; three steps are written anew:

    candidates  the windows whose best class scores best, then the best (window, class) pairs
                of those: the same pairs in the same order as sorting all pairs
    suppress    greedy NMS as an iteration on the matrix of overlaps: one step decides at least
                one more box for good, in practice most of them; when a step changes nothing,
                greedy NMS is done
    masks       every bin of a window lies on a grid of the picture, whatever the level; so all
                masks of a picture fit one array, a *canvas* per detection

What stays outside is small, and depends on the picture's size in the file: clip, scale, paste
(`detections.py`). Letters of the shapes: N images, M windows, K classes, A window sizes,
P x Q bins of a canvas, D places for detections. Two lengths are cut to those of the image that
has most: C candidates, F detections. In TensorRT they are `topk_candidates` and D.

next: onnx_file/precision.py
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.onnx.operators import shape_as_tensor

from tensormask_edu.base.errors import bad_input
from tensormask_edu.config import ModelConfig
from tensormask_edu.detector import boxes
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.detector.network import NetworkOutput, per_window
from tensormask_edu.geometry import round_up
from tensormask_edu.ops import swap_align2nat, swap_align2nat_windows

from .. import contract
from .leading import leading

MaskMode = Literal["windows", "dense"]
MASK_MODES: tuple[MaskMode, ...] = ("windows", "dense")
LARGEST_TOPK = 3840  # TensorRT's limit
MOST_CANDIDATES = 15_000  # C x C overlaps in float32 are 0.9 GB
NMS_ITERATIONS = 32
FIRST_ITERATIONS = 12  # of them: nearly all pictures need no more


class Candidates(NamedTuple):
    """C (window, class) pairs per image, best first."""

    box: Tensor  # (N, C, 4) xyxy
    scores: Tensor  # (N, C)
    labels: Tensor  # (N, C)
    place: Tensor  # (N, C, 4): level, size, y, x


class DetectorGraph(nn.Module):
    """Images -> tensors by the names of `contract`.

    Images are (N, 3, H, W) RGB in [0, 1], H and W multiples of `geometry.padding_px`. Pixels
    beyond the picture must hold `padding_colour`: zero once normalised, as in training.

    Args:
        model: its weights are used as they are; put it in evaluation mode.
        masks: "windows" computes the masks of the kept windows; "dense" those of all windows,
            and reads the kept ones there: for study.
        candidates: (window, class) pairs that enter NMS; default the model's `topk_candidates`,
            at most TensorRT's limit. `config` holds the number taken.
        nms_iterations: see `suppress`.
        inner: kinds of mask tensors among the outputs, of `contract.INNER`; logits and deltas
            always are.
    """

    def __init__(
        self,
        model: TensorMask,
        masks: MaskMode = "windows",
        candidates: int | None = None,
        nms_iterations: int = NMS_ITERATIONS,
        inner: Collection[contract.Inner] = (),
    ) -> None:
        super().__init__()
        check_head(model.config)
        if masks not in MASK_MODES:
            raise bad_input("masks", " or ".join(MASK_MODES), repr(masks))
        if candidates is None:
            candidates = min(model.config.topk_candidates, LARGEST_TOPK)
        if candidates < 1:
            raise bad_input("candidates", "at least 1", candidates)
        if candidates > MOST_CANDIDATES:
            expected = f"at most {MOST_CANDIDATES}, whose overlaps take a gigabyte"
            raise bad_input("candidates", expected, candidates)
        if nms_iterations < 1:
            raise bad_input("nms_iterations", "at least 1", nms_iterations)
        if not set(inner) <= set(contract.INNER):
            raise bad_input("inner", f"some of {', '.join(contract.INNER)}", sorted(inner))
        self.model, self.masks, self.nms_iterations = model, masks, nms_iterations
        self.inner = inner
        self.config = replace(model.config, topk_candidates=candidates)

    @property
    def num_detections(self) -> int:
        """Places for detections in the outputs."""
        return min(self.config.detections_per_image, self.config.topk_candidates)

    @property
    def output_names(self) -> list[str]:
        """Keys of what `forward` returns, in its order."""
        geometry = self.config.geometry
        levels, sizes = range(geometry.num_levels), range(geometry.num_sizes)
        raw = [*map(contract.logits, levels), *map(contract.deltas, levels)]
        names = [*contract.OUTPUTS, *raw]
        for kind, name in (("aligned", contract.aligned), ("natural", contract.natural)):
            if kind in self.inner:
                names += itertools.starmap(name, itertools.product(levels, sizes))
        return names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # Pixels are normalised in float32, then enter a network that may be float16
        normal = self.model.normalise(images).to(next(self.model.network.parameters()).dtype)
        output = self.model.network(normal)
        return self.detections(output) | self.raw(output) | self.mask_tensors(output)

    def raw(self, output: NetworkOutput) -> dict[str, Tensor]:
        """The network's logits and deltas by name."""
        logits = {contract.logits(level): m for level, m in enumerate(output.logits)}
        deltas = {contract.deltas(level): m for level, m in enumerate(output.deltas)}
        return logits | deltas

    def mask_tensors(self, output: NetworkOutput) -> dict[str, Tensor]:
        """The mask logits of all windows, in the representations asked for, by name."""
        lams, sizes = self.config.geometry.lams, range(self.config.geometry.num_sizes)
        aligned = {
            (level, size_id): output.predicted(level, size_id)  # (N, V, U, H, W)
            for level, size_id in itertools.product(range(len(lams)), sizes)
            if {"aligned", "natural"} & set(self.inner)
        }
        named: dict[str, Tensor] = {}
        if "aligned" in self.inner:
            named |= {contract.aligned(*kind): tensor for kind, tensor in aligned.items()}
        if "natural" in self.inner:
            for (level, size_id), tensor in aligned.items():
                # -> (N, lam*V, lam*U, H_l, W_l)
                swapped = swap_align2nat(tensor, lams[level], self.config.pad_value)
                named[contract.natural(level, size_id)] = swapped
        return named

    def detections(self, output: NetworkOutput) -> dict[str, Tensor]:
        """The outputs of the contract."""
        candidates = self.candidates(output)
        keep, converged = self.suppress(candidates)  # (N, C), (N,)
        first, found = first_places(keep, self.num_detections)  # (N, F) twice
        box, scores, labels, place = at(first, *candidates)  # (N, F), boxes and places times 4
        place = torch.where(found[..., None], place, 0)
        found_by_name = {
            contract.BOXES: torch.where(found[..., None], box, 0.0),
            contract.SCORES: torch.where(found, scores, 0.0),
            contract.LABELS: torch.where(found, labels, 0),
            contract.WINDOWS_OUT: place,
            contract.MASKS_OUT: self.canvas(output, place, found),
        }
        missing = self.num_detections - first.shape[1]
        return {
            **{name: filled_up(values, missing) for name, values in found_by_name.items()},
            contract.COUNT: found.sum(1),
            contract.CONVERGED: converged,
        }

    def candidates(self, output: NetworkOutput) -> Candidates:
        """The best (window, class) pairs of each image, as `inference.keep` orders them.

        They are all that any image has above the score threshold, but at most
        `topk_candidates`.
        """
        num_sizes = self.config.geometry.num_sizes
        logits = per_window(output.logits, num_sizes).float()  # (N, M, K)
        deltas = per_window(output.deltas, num_sizes).float()  # (N, M, 4)
        num_windows, num_classes = logits.shape[1:]
        # The C best pairs belong to the C windows with the best best class. Zeros behind the
        # last window make sure that there are C; ascending order breaks ties among pairs as the
        # order of all pairs would.
        best = logits.amax(dim=2).sigmoid()  # (N, M)
        best = nn.functional.pad(best, (0, self.config.topk_candidates))
        window = best.topk(self.most_above(best)).indices.sort(dim=1).values  # (N, C)
        present = window < num_windows
        window = window.clamp(max=num_windows - 1)
        (chosen,) = at(window, logits)  # (N, C, K)
        pairs = torch.where(present[..., None], chosen.sigmoid(), 0.0)
        pairs = pairs.flatten(1)  # (N, C*K)
        scores, pair = pairs.topk(self.most_above(pairs))  # (N, C)
        row = pair // num_classes
        # pair % num_classes, from the division that is done already
        labels, (window,) = pair - row * num_classes, at(row, window)
        (chosen,) = at(window, deltas)  # (N, C, 4)
        level, y, x, size_id = self.cells(output, window)  # (N, C) each
        box = boxes.decode(  # of all images in one list, (N*C, 4)
            self.config.geometry.boxes_px(level, y, x, size_id).flatten(0, 1),
            chosen.flatten(0, 1),
            self.config.box_weights,
        )
        place = torch.stack([level, size_id, y, x], dim=2)  # (N, C, 4)
        return Candidates(box.view(*scores.shape, 4), scores, labels, place)

    def cells(self, output: NetworkOutput, window: Tensor) -> tuple[Tensor, ...]:
        """Where windows (N, C) stand, by their positions in `Geometry.windows`.

        Not read from `Geometry.cells`: a table of all windows would take more nodes.

        Returns:
            level, y, x, size_id: (N, C) each
        """
        num_sizes = self.config.geometry.num_sizes
        shapes = torch.stack([shape_as_tensor(m) for m in output.logits])
        sides = shapes[:, 2:].to(window.device)  # (levels, 2)
        of_level = sides.prod(1) * num_sizes  # (levels,), how many windows
        numbers = torch.arange(len(output.logits), device=window.device)
        first = (of_level * (numbers < numbers[:, None])).sum(1)  # (levels,)
        level = (window[..., None] >= first).sum(2) - 1  # (N, C)
        within = window - first[level]
        cell = within // num_sizes
        width = sides[:, 1][level]
        y = cell // width
        return level, y, cell - y * width, within - cell * num_sizes

    def most_above(self, scores: Tensor) -> int:
        """How many of the scores (N, ...) of the fullest image are above the threshold.

        From 1 to `topk_candidates`; in TensorRT that many.
        """
        most = (scores > self.config.score_threshold).sum(1).max()
        every = torch.arange(self.config.topk_candidates, device=scores.device)
        return leading(every, most).shape[0]

    def suppress(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Greedy NMS per class: keep (N, C), and whether the iteration came to rest (N,).

        keep[j] = 1 if j is valid and no kept i before j overlaps it, for all j at once, again
        and again: in numbers, relu(valid - keep @ hits). After t steps the first t boxes are
        decided, and with them every chain of overlaps shorter than t. A state that repeats is
        the one fixed point, the greedy one.
        """
        labels = candidates.labels if self.config.num_classes > 1 else None
        hits = overlaps(candidates.box, labels, self.config.nms_threshold).float()
        valid = (candidates.scores > self.config.score_threshold).float()[:, None]  # (N, 1, C)
        first = min(FIRST_ITERATIONS, self.nms_iterations)
        keep, rests = suppressed(valid, valid, hits, first)  # (N, 1, C), (N,)
        if first < self.nms_iterations:
            # Where all has come to rest, one box stands for all: the others would not change
            length, done = valid.shape[2], rests.all()
            every = torch.arange(length, device=hits.device)
            some = leading(every, ~done * length)  # (B,), 1 or C
            parts = (keep[..., some], valid[..., some], hits[:, some][..., some])
            later, rest_later = suppressed(*parts, self.nms_iterations - first)
            later = nn.functional.pad(later, (0, length - some.shape[0]))  # (N, 1, C)
            keep, rests = torch.where(done, keep, later), rests | rest_later
        return keep[:, 0] > 0, rests

    def canvas(self, output: NetworkOutput, place: Tensor, found: Tensor) -> Tensor:
        """Mask probabilities (N, F, P, Q) of the windows at `place` (N, F, 4)."""
        strips, first = self.strips(output, place, found)  # (R, Q), (N, F)
        rows = output.logits[0].shape[2] + contract.CANVAS_BORDER  # P
        level, size_id, y, _ = place.unbind(2)  # (N, F) each
        lam, side = (values[level, size_id] for values in self.window_tables(y))
        p = bins_on_canvas(lam * y, side, rows)  # (N, F, P)
        inside = (p >= 0) & (p < side[..., None]) & found[..., None]
        return strips[torch.where(inside, first[..., None] + p, 0)]  # (N, F, P, Q)

    def strips(
        self, output: NetworkOutput, place: Tensor, found: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rows of all masks, as wide as a canvas, (R, Q), and where each's begin, (N, F).

        Row 0 is nobody's: it is what lies above and below a window. Windows of one kind, level
        and size, are computed together: as many of every image as the one with most has, in
        TensorRT D.
        """
        geometry, device = self.config.geometry, place.device
        kinds = list(itertools.product(range(geometry.num_levels), range(geometry.num_sizes)))
        numbers = torch.arange(len(kinds), device=device)
        kind = place[..., 0] * geometry.num_sizes + place[..., 1]  # (N, F)
        mine = (kind[:, None] == numbers[:, None]) & found[:, None]  # (N, kinds, F)
        index = self.cells_by_kind(place, mine)  # (N, kinds, B, 3)
        most = mine.sum(2).amax(0)  # (kinds,), of the image with most
        every = torch.arange(self.num_detections, device=device)
        columns = output.logits[0].shape[3] + contract.CANVAS_BORDER  # Q
        strips, counts = [torch.zeros(1, columns, device=device)], []
        for number, (level, size_id) in enumerate(kinds):
            some = leading(every, most[number])  # (B_k,)
            chosen = index[:, number][:, some].flatten(0, 1)  # (N*B_k, 3)
            mask = self.bins_at(output, level, size_id, chosen).float().sigmoid()
            place_x = (geometry.lams[level] * chosen[:, 2], geometry.side_bins(level, size_id))
            strips.append(widened(mask, *place_x, columns).flatten(0, 1))  # (N*B_k*side, Q)
            counts.append(some[-1] + 1)  # B_k
        # A detection's rows stand behind those of other kinds, of other images, and of other
        # detections of its kind, as far as they come before
        count, side = torch.stack(counts), self.window_tables(place)[1].flatten()
        of_kind = kind.shape[0] * count * side  # (kinds,)
        before = (of_kind * (numbers < numbers[:, None])).sum(1)  # (kinds,)
        image = torch.arange(kind.shape[0], device=device)[:, None]  # (N, 1)
        position = torch.arange(kind.shape[1], device=device)
        same = kind[:, :, None] == kind[:, None]  # (N, F, F)
        rank = (same & (position < position[:, None])).sum(2)  # (N, F)
        first = 1 + before[kind] + (image * count[kind] + rank) * side[kind]
        return torch.cat(strips), first

    def cells_by_kind(self, place: Tensor, mine: Tensor) -> Tensor:
        """Where the windows of each kind stand: rows (n, y, x) of (N, kinds, B, 3).

        Args:
            place: (N, F, 4).
            mine: (N, kinds, F), which of them are of a kind; B is the most of any.
        """
        num, num_kinds, _ = mine.shape
        row, there = first_places(mine.flatten(0, 1), self.num_detections)  # (N*kinds, B) twice
        image = torch.arange(num, device=place.device)[:, None].expand_as(place[..., 0])
        cells = torch.cat([image[..., None], place[..., 2:]], dim=2)  # (N, F, 3)
        (chosen,) = at(row.view(num, -1), cells)  # (N, kinds*B, 3)
        chosen = chosen.view(num, num_kinds, -1, 3)
        # Where there are fewer, cell (0, 0) is computed, and nobody reads it
        return torch.where(there.view(num, num_kinds, -1, 1), chosen, 0)

    def window_tables(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Tables (levels, A): lam, bins per side."""
        geometry = self.config.geometry
        levels, sizes = range(geometry.num_levels), range(geometry.num_sizes)
        rows = [[geometry.side_bins(level, size) for size in sizes] for level in levels]
        side = torch.tensor(rows, device=like.device)  # (levels, A)
        lam = torch.tensor(geometry.lams, device=like.device)[:, None].expand_as(side)
        return lam, side

    def bins_at(self, output: NetworkOutput, level: int, size_id: int, index: Tensor) -> Tensor:
        """Mask logits (B, side, side) of windows of one kind at `index` (B, 3): n, y, x."""
        lam, pad_value = self.config.geometry.lams[level], self.config.pad_value
        aligned = output.predicted(level, size_id)  # (N, V, U, H, W), mask features' grid
        if self.masks == "windows":
            return swap_align2nat_windows(aligned, lam, index, pad_value)
        natural = swap_align2nat(aligned, lam, pad_value)  # (N, side, side, rows, columns)
        n, y, x = index.unbind(1)
        return natural.permute(0, 3, 4, 1, 2)[n, y, x]  # (B, side, side)


def check_head(config: ModelConfig) -> None:
    """InputError unless the masks are `swap_align2nat` of square windows: the nodes we have."""
    fix = "an ONNX file has the bipyramid head or the simple aligned one"
    if not config.swaps:
        raise bad_input("model", "a head of swap_align2nat on every level", config.head, fix)
    if any(rows != columns for rows, columns in config.geometry.shapes_bins):
        raise bad_input("model", "square windows", config.sides_bins)


def at(index: Tensor, *lists: Tensor) -> list[Tensor]:
    """Of each list values[n, index[n]] for each image n: (N, B), (N, M, ...) -> (N, B, ...)."""
    # Images in one row: so it is one plain Gather in ONNX
    num, length = lists[0].shape[:2]
    place = index + length * torch.arange(num, device=index.device)[:, None]
    return [values.flatten(0, 1)[place] for values in lists]


def suppressed(
    keep: Tensor, valid: Tensor, hits: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """`keep` (N, 1, C) after so many iterations, and whether the last changed nothing, (N,)."""
    before = keep
    # A fixed number of steps: a loop until nothing changes has no place in a static graph
    for _ in range(iterations):
        before, keep = keep, (valid - keep @ hits).relu()
    return keep, (keep == before).all(dim=2)[:, 0]


def overlaps(box: Tensor, labels: Tensor | None, threshold: float) -> Tensor:
    """(N, C, C) bool at [i, j], i < j: same class, as all are without labels, IoU > threshold.

    In torchvision's arithmetic, so that a box on the threshold falls on the same side.
    """
    x0, y0, x1, y1 = box.unbind(2)  # (N, C) each
    area = (x1 - x0) * (y1 - y0)
    # One factor below 0 is enough for a hit to be none
    shared = shared_length(x0, x1) * shared_length(y0, y1).clamp(min=0)  # (N, C, C)
    iou = shared / (area[:, :, None] + area[:, None] - shared)
    order = torch.arange(box.shape[1], device=box.device, dtype=torch.int32)
    hits = (iou > threshold) & (order[:, None] < order)
    return hits if labels is None else hits & (labels[:, :, None] == labels[:, None])


def shared_length(low: Tensor, high: Tensor) -> Tensor:
    """How much of the intervals i and j is in both, negative if they are apart.

    (N, C) twice -> (N, C, C)
    """
    end = torch.minimum(high[:, :, None], high[:, None])
    return end - torch.maximum(low[:, :, None], low[:, None])


def first_places(flags: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The first true places of each row of (R, C): index, exists, both (R, B).

    B is their number in the fullest row, from 1 to `limit`; in TensorRT it is `limit`.
    """
    length = flags.shape[1]
    rank = length - torch.arange(length, device=flags.device)  # (C,), all different: no ties
    most = leading(torch.arange(limit, device=flags.device), flags.sum(1).max())
    best, index = torch.where(flags, rank, 0).float().topk(most.shape[0])
    return index, best > 0


def filled_up(values: Tensor, missing: int) -> Tensor:
    """(N, B, ...) -> (N, B + missing, ...), zeros behind."""
    other_axes = [0, 0] * (values.dim() - 2)
    return nn.functional.pad(values, [*other_axes, 0, missing])


def bins_on_canvas(centre: Tensor, side: Tensor | int, length: int) -> Tensor:
    """For each window and canvas row the bin of the window there: (...) -> (..., length).

    It is below 0 above the window and at least `side` below it.

    Args:
        centre: of the windows, in bins from the picture's corner.
        side: their bins per side.
    """
    # The canvas begins one bin before the picture: half of `CANVAS_BORDER`
    row = torch.arange(length, device=centre.device) - 1
    return row + (side // 2 - centre)[..., None]


def widened(masks: Tensor, centre: Tensor, side: int, length: int) -> Tensor:
    """Masks (B, V, U) on the columns of a canvas: (B, V, length), zero outside the windows.

    Args:
        centre: (B,), along x, and side U: see `bins_on_canvas`.
    """
    # Column by column, copied whole: far quicker than number by number. One more column before
    # the first and one behind the last are zero
    columns = nn.functional.pad(
        masks.transpose(1, 2), (0, 0, 1, 1)
    )  # (B, V, U) -> (B, U + 2, V)
    bins = bins_on_canvas(centre, side, length)  # (B, length)
    (chosen,) = at((bins + 1).clamp(0, side + 1), columns)  # (B, length, V)
    return chosen.transpose(1, 2)


def padding_colour(config: ModelConfig) -> tuple[float, ...]:
    """The RGB colour in [0, 1] that is zero once normalised: what pads a picture."""
    colour = [mean / config.pixel_scale for mean in config.pixel_mean]
    return tuple(colour[::-1] if config.bgr else colour)


def pad_to_multiple(model: TensorMask, images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1], padded at the right and bottom to sides that the graph takes."""
    multiple = model.config.geometry.padding_px
    num, _, height, width = images.shape
    sides = (round_up(height, multiple), round_up(width, multiple))
    colour = images.new_tensor(padding_colour(model.config)).view(1, 3, 1, 1)
    padded = colour.repeat(num, 1, *sides)
    padded[..., :height, :width] = images
    return padded
