"""The exported detector: its three steps against the model's, every form against PyTorch."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from exported import NO_RTX, SMALL, needs_rtx, outspoken
from tolerances import ACTIVATION
from torchvision.ops import FrozenBatchNorm2d

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import NetworkOutput, WindowMasks, per_window
from tensormask_edu.weights.checkpoint import load_checkpoint

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx.reference import ReferenceEvaluator
from tensormask_export import cli, contract
from tensormask_export.engine.build import build_engine
from tensormask_export.onnx_file import graph as graph_module
from tensormask_export.onnx_file.capture import traced
from tensormask_export.onnx_file.graph import (
    Candidates,
    DetectorGraph,
    first_places,
    overlaps,
    pad_to_multiple,
    padding_colour,
)
from tensormask_export.onnx_file.leading import leading
from tensormask_export.onnx_file.precision import fold_norms, in_precision
from tensormask_export.onnx_file.read import expose, read_onnx
from tensormask_export.onnx_file.write import (
    add_bodies,
    computed,
    export_onnx,
    windows_metadata,
)
from tensormask_export.runtimes import detections
from tensormask_export.runtimes.parsed import ParsedNetwork
from tensormask_export.shapes import Profile
from tensormask_export.verify.report import verify

SIZES = [(37, 61), (40, 64)]  # of two pictures of one batch; the second fills it
OUTPUT_SIZES = [(55, 44), (40, 64)]


@pytest.fixture(params=["cut", "whole"])
def lists(request, monkeypatch):
    """What `leading` returns: what its count says, or, as TensorRT's Identity, everything."""
    if request.param == "whole":
        monkeypatch.setattr(graph_module, "leading", lambda x, count: x)


def metadata(graph: DetectorGraph) -> dict:
    return {contract.WINDOWS: windows_metadata(graph.config.geometry)}


def batch(model, images):
    """Pictures padded as a user of the file pads them: here to one size."""
    return torch.cat([pad_to_multiple(model, image[None]) for image in images])


# --- the graph against the model --------------------------------------------------------------

VARIANTS = {
    "windows, odd and even sides": (SMALL, {}),
    "dense masks": (SMALL, {"masks": "dense"}),
    "one class": (replace(SMALL, class_names=("thing",)), {}),
    "no bipyramid": (replace(SMALL, bipyramid=False), {}),
    "more levels than window sizes": (replace(SMALL, sides_bins=(3,)), {}),
    "fewer candidates than detections": (replace(SMALL, topk_candidates=7), {}),
    "candidates given": (SMALL, {"candidates": 11}),
    "more candidates than pairs": (SMALL, {"candidates": 2000}),
    "threshold above most": (replace(SMALL, score_threshold=0.1), {}),
}


@pytest.mark.parametrize("case", VARIANTS)
@torch.no_grad()
def test_detections_are_those_of_the_model(case, lists):
    config, arguments = VARIANTS[case]
    model = outspoken(build_model(config)).eval()
    graph = DetectorGraph(model, **arguments).eval()
    images = [torch.rand(3, *size) for size in SIZES]
    same = copy.copy(model)
    same.config = graph.config
    expected = same(images, output_sizes=OUTPUT_SIZES)
    outputs = {name: tensor.numpy() for name, tensor in graph(batch(model, images)).items()}
    assert list(outputs) == graph.output_names
    found = detections.detections(outputs, metadata(graph), SIZES, OUTPUT_SIZES)
    assert outputs["nms_converged"].all() and sum(len(each["scores"]) for each in expected) > 5
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a["labels"], b["labels"])
        np.testing.assert_allclose(b["scores"], a["scores"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(b["boxes"], a["boxes"], rtol=1e-6, atol=1e-4)
        assert b["masks"].any() and (a["masks"].numpy() != b["masks"]).sum() <= 1


@pytest.mark.parametrize("bgr", [False, True])
def test_what_pads_a_picture_is_zero_once_normalised(bgr):
    mean = (51.0, 102.0, 204.0)
    scale = {"pixel_scale": 255.0, "pixel_mean": mean, "pixel_std": (1.0, 1.0, 1.0)}
    config = replace(SMALL, bgr=bgr, **scale)
    model, images = build_model(config), torch.rand(2, 3, 13, 30)
    padded = pad_to_multiple(model, images)
    assert padded.shape == (2, 3, 16, 32) and torch.equal(padded[..., :13, :30], images)
    rgb = [value / 255 for value in (mean[::-1] if bgr else mean)]
    assert padding_colour(config) == pytest.approx(rgb)
    border = torch.ones(16, 32, dtype=torch.bool)
    border[:13, :30] = False
    assert model.normalise(padded)[..., border].abs().max() < ACTIVATION


@torch.no_grad()
def test_beyond_the_count_everything_is_zero(lists):
    graph = DetectorGraph(
        outspoken(build_model(replace(SMALL, score_threshold=0.1))).eval()
    ).eval()
    outputs = graph(torch.rand(3, 3, 24, 32))
    counts = outputs["count"].tolist()
    assert 0 < min(counts) and max(counts) < graph.num_detections
    for name in ("boxes", "scores", "labels", "windows", "masks"):
        for values, count in zip(outputs[name], counts, strict=True):
            assert not values[count:].any()
            assert values[:count].any() or name in ("labels", "windows")  # where 0 is a value


@torch.no_grad()
def test_without_a_detection_the_outputs_are_empty(lists):
    graph = DetectorGraph(build_model(replace(SMALL, score_threshold=0.9)).eval()).eval()
    outputs = graph(torch.rand(1, 3, 16, 16))
    assert not any(outputs[name].any() for name in contract.OUTPUTS if name != "nms_converged")
    named = {name: tensor.numpy() for name, tensor in outputs.items()}
    (found,) = detections.detections(named, metadata(graph), [(16, 16)], [(30, 20)])
    assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 30, 20)


GRIDS = [(6, 5), (3, 3)]
NUM_CLASSES = 3


class BestPairs(torch.nn.Module):
    """The candidates alone: logits of two levels -> scores, position among all pairs."""

    def __init__(self, count: int, threshold: float = 0.0) -> None:
        super().__init__()
        config = replace(SMALL, class_names=("a", "b", "c"), score_threshold=threshold)
        # In a list: its weights are no part of this
        self.unlisted = [DetectorGraph(build_model(config).eval(), candidates=count)]

    def forward(self, fine, coarse):
        (graph,) = self.unlisted
        deltas = [fine[:, :1].expand(-1, 8, -1, -1), coarse[:, :1].expand(-1, 8, -1, -1)]
        output = NetworkOutput([], [fine, coarse], deltas, [], None, graph.config)
        found = graph.candidates(output)
        level, size_id, y, x = found.place.unbind(2)  # of the windows' order: level, y, x, size
        (rows, columns), (_, coarse_columns) = GRIDS
        cell = y * torch.where(level == 0, columns, coarse_columns) + x
        window = 2 * (level * rows * columns + cell) + size_id
        return found.scores, window * NUM_CLASSES + found.labels


def check_best_pairs(count, logits, scores, pairs, threshold=0.0):
    flat = per_window(logits, 2).sigmoid().flatten(1)
    expected, order = flat.sort(dim=1, descending=True, stable=True)
    above = (expected > threshold).sum(1).clamp(max=count)  # (2,)
    assert scores.shape == pairs.shape == (2, max(int(above.max()), 1))
    for number, taken in enumerate(above.tolist()):
        torch.testing.assert_close(
            scores[number, :taken], expected[number, :taken], rtol=0, atol=1e-6
        )
        assert torch.equal(pairs[number, :taken], order[number, :taken])
        assert not (scores[number, taken:] > threshold).any()


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.999])
@pytest.mark.parametrize("count", [1, 10, 60, 2000])
def test_candidates_are_the_first_of_all_pairs_sorted(count, threshold):
    logits = [torch.randn(2, 2 * NUM_CLASSES, *size) for size in GRIDS]
    logits[0][0] -= 1  # fewer in the first image
    check_best_pairs(count, logits, *BestPairs(count, threshold)(*logits), threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.999])
def test_in_onnx_they_are_so_even_where_scores_are_equal(threshold):
    """Unlike torch.topk, ONNX's TopK takes the lower index first among equals."""
    logits = [torch.randint(-3, 4, (2, 2 * NUM_CLASSES, *size)).float() for size in GRIDS]
    names = ["fine", "coarse"]
    file = traced(BestPairs(60, threshold), tuple(logits), names, ["scores", "pairs"])
    add_bodies(file)
    session = ort.InferenceSession(file.SerializeToString())
    found = session.run(None, {name: t.numpy() for name, t in zip(names, logits, strict=True)})
    check_best_pairs(60, logits, *map(torch.from_numpy, found), threshold)


class Leading(torch.nn.Module):
    """The op alone, on a list of eight."""

    def forward(self, count):
        return leading(torch.arange(8), count)


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9])
def test_a_list_is_cut_in_onnx_and_whole_in_tensorrt(count):
    given = torch.tensor(count)
    file = traced(Leading(), (given,), ["count"], ["list"], {"list": ("length",)})
    add_bodies(file)
    inputs = {"count": given.numpy()}
    expected = list(range(min(max(count, 1), 8)))
    assert leading(torch.arange(8), given).tolist() == expected
    assert ReferenceEvaluator(file).run(None, inputs)[0].tolist() == expected
    session = ort.InferenceSession(file.SerializeToString())
    assert session.run(None, inputs)[0].tolist() == expected
    if not NO_RTX:
        assert ParsedNetwork(file).compute(inputs)["list"].tolist() == list(range(8))


def suppressed(box, labels, threshold, iterations):
    """Kept positions by the iteration, and whether it came to rest."""
    graph = DetectorGraph(
        build_model(replace(SMALL, nms_threshold=threshold)), nms_iterations=iterations
    )
    scores = torch.linspace(0.9, 0.1, len(box))
    keep, converged = graph.suppress(
        Candidates(box[None], scores[None], labels[None], labels[None])
    )
    return keep[0].nonzero().squeeze(1), bool(converged), scores


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_the_iteration_is_greedy_nms(threshold):
    centre, size = 40 * torch.rand(400, 2), 4 + 30 * torch.rand(400, 2)
    box = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    labels = torch.randint(0, 3, (400,))
    kept, converged, scores = suppressed(box, labels, threshold, 32)
    assert converged
    assert torch.equal(kept, inference.suppress(box, scores, labels, threshold))


def test_a_chain_longer_than_the_iterations_is_reported():
    """Each box suppresses the next, if it is kept itself: one step decides one box."""
    start = torch.arange(12.0)[:, None] * 2
    # Neighbours: IoU 2/3
    box = torch.cat([start, 0 * start, start + 10, 0 * start + 10], dim=1)
    labels = torch.zeros(12, dtype=torch.int64)
    kept, converged, scores = suppressed(box, labels, 0.5, 12)
    assert converged and kept.tolist() == list(range(0, 12, 2))
    assert torch.equal(kept, inference.suppress(box, scores, labels, 0.5))
    kept, converged, _ = suppressed(box, labels, 0.5, 6)
    assert not converged and kept.tolist() != list(range(0, 12, 2))


def test_boxes_of_different_classes_never_meet_even_at_negative_coordinates():
    """`torchvision.ops.batched_nms` shifts boxes by their class: so these two meet."""
    box = torch.tensor([[0.0, 0, 100, 100], [-101, -101, 0, 0]])
    labels = torch.tensor([0, 1])
    assert overlaps(box[None], labels[None], 0.5).sum() == 0
    assert inference.suppress(box, torch.tensor([0.9, 0.8]), labels, 0.5).tolist() == [0, 1]


def test_the_first_places_come_in_order(lists):
    keep = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    index, found = first_places(keep, 3)
    assert index[0].tolist() == [1, 2, 4] and found.tolist() == [
        [True] * 3,
        [True, False, False],
    ]
    assert index[1, 0] == 5


def test_as_many_first_places_as_the_fullest_row_has():
    keep = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    index, found = first_places(keep, 3)
    assert index[0].tolist() == [1, 3] and found.tolist() == [[True, True], [False, False]]
    index, found = first_places(keep[1:], 3)
    assert index.shape == (1, 1) and not found.any()


# --- masks of given windows -------------------------------------------------------------------

HEADS = {
    "bipyramid": (SMALL, {}),
    "dense": (SMALL, {"masks": "dense"}),
    "no bipyramid": (replace(SMALL, bipyramid=False), {}),
    "windows larger than the picture": (replace(SMALL, strides_px=(4, 8, 16, 32)), {}),
}
# Which windows are kept, as a range of levels and sizes
KEPT = {
    "any": (slice(None), slice(None)),
    "one level": (slice(1, 2), slice(None)),
    "one kind": (slice(0, 1), slice(1, 2)),
}


def on_canvas(geometry, natural, place, rows, columns):
    """One window's mask (P, Q), bin by bin: zero outside of it."""
    level, size_id, y, x = place
    lam, side = geometry.lams[level], geometry.side_bins(level, size_id)
    mask = natural[level][size_id][:, :, y, x].sigmoid()
    canvas = torch.zeros(rows, columns)
    for p, q in np.ndindex(side, side):
        i, j = lam * y - side // 2 + p + 1, lam * x - side // 2 + q + 1
        if 0 <= i < rows and 0 <= j < columns:
            canvas[i, j] = mask[p, q]
    return canvas


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_each_mask_is_that_of_its_window(head, kept, lists):
    """Random windows, as many in one picture as there is room for, and two in the other."""
    config, arguments = HEADS[head]
    model, (levels, sizes) = outspoken(build_model(config)).eval(), KEPT[kept]
    graph, geometry = DetectorGraph(model, **arguments).eval(), config.geometry
    output = model.network(torch.randn(2, 3, 32, 64))
    windows = geometry.windows([m.shape[2:] for m in output.logits])
    every = torch.stack([windows.level, windows.size_id, windows.y, windows.x], dim=1)
    mine = torch.isin(windows.level, torch.arange(geometry.num_levels)[levels])
    mine &= torch.isin(windows.size_id, torch.arange(geometry.num_sizes)[sizes])
    counts = (graph.num_detections, 2)
    place, found = torch.zeros(2, counts[0], 4, dtype=torch.int64), torch.zeros(2, counts[0])
    for number, count in enumerate(counts):
        some = mine.nonzero().squeeze(1)
        place[number, :count] = every[some[torch.randint(len(some), (count,))]]
        found[number, :count] = 1
    canvases = graph.canvas(output, place, found.bool())
    natural = model.network.natural(output)
    for number, count in enumerate(counts):
        of_image = [[m[number] for m in masks] for masks in natural]
        for mask, where in zip(canvases[number, :count], place[number, :count], strict=True):
            expected = on_canvas(geometry, of_image, where.tolist(), *mask.shape)
            torch.testing.assert_close(mask, expected, rtol=0, atol=ACTIVATION)
        assert not canvases[number, count:].any()


# --- half precision ---------------------------------------------------------------------------


def test_folding_a_normalisation_changes_nothing():
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.Sequential(torch.nn.Conv2d(4, 5, 1, bias=False), FrozenBatchNorm2d(5)),
    ).eval()  # fmt: skip
    for norm in (body[1], body[3][1]):
        norm.weight.data = torch.rand_like(norm.weight) + 0.5
        norm.bias.data = torch.randn_like(norm.bias)
        norm.running_mean = torch.randn_like(norm.bias)
        norm.running_var = torch.tensor([1e-9, 1e-3, 1.0, 10.0, 1e3])[: len(norm.bias)]
    x = torch.rand(2, 3, 8, 8)
    expected = body(x)
    fold_norms(body)
    assert isinstance(body[1], torch.nn.Identity) and isinstance(body[3][1], torch.nn.Identity)
    torch.testing.assert_close(body(x), expected, rtol=1e-4, atol=1e-4)


def test_a_model_in_a_precision_is_a_copy_without_batch_norms():
    model = build_model(SMALL).eval()
    half = in_precision(model, "float16")
    assert {p.dtype for p in half.network.parameters()} == {torch.float16}
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    plain = in_precision(model, "float32")
    assert {p.dtype for p in plain.network.parameters()} == {torch.float32}
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in plain.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())


@pytest.fixture(scope="module")
def half(small, tmp_path_factory):
    """The small model in half precision: (checkpoint, ONNX file)."""
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    export_onnx(load_checkpoint(small[0])[0], path, precision="float16", inner=["logits"])
    return small[0], path


def test_a_half_precision_file_has_half_weights_and_float32_islands(half, small):
    proto = onnx.load(half[1])
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    weights = {name: kind for name, kind in kinds.items() if name.endswith("weight")}
    assert len(weights) > 15 and set(weights.values()) == {onnx.TensorProto.FLOAT16}
    values = {
        v.name: v.type.tensor_type.elem_type for v in [*proto.graph.input, *proto.graph.output]
    }
    assert {values[name] for name in ("images", "boxes", "scores", "masks")} == {
        onnx.TensorProto.FLOAT
    }
    # --inner keeps it an output, as it is computed
    assert values["logits_0"] == onnx.TensorProto.FLOAT16
    assert half[1].stat().st_size < small[1].stat().st_size


def test_a_half_precision_file_gives_pytorchs_detections_within_its_limits(half):
    report = verify(half[1], half[0], runtimes=["onnxruntime", "parsed"])
    assert report.passed and report.precision == "float16"
    assert 1e-4 < report.max_abs <= report.tolerance  # half precision, and no worse
    assert sum(row.expected for row in report.matches) > 20


@pytest.mark.long
@needs_rtx
def test_a_half_precision_engine_builds_without_a_gpu(half, tmp_path):
    profile = Profile((1, 3, 16, 16), (1, 3, 32, 32), (2, 3, 64, 64))
    report = build_engine(
        half[1], tmp_path / "half.engine", profile=profile, backend="tensorrt_rtx", sm=[86]
    )
    assert report.bytes > 0 and not report.warnings


# --- the file ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(small, tmp_path_factory):
    """The small model with all inner tensors as outputs, by the command."""
    path = tmp_path_factory.mktemp("inner") / "inner.onnx"
    assert cli.main(["onnx", str(small[0]), str(path), "--inner"]) == 0
    return path


def test_inner_tensors_are_outputs_where_they_were_asked_for(opened, small):
    images = np.random.default_rng(0).random((2, 3, 24, 32), np.float32)
    session = ort.InferenceSession(opened)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"images": images}), strict=True))
    model = load_checkpoint(small[0])[0].eval()
    expected = computed(DetectorGraph(model, inner=contract.INNER).eval(), images)
    assert names == list(expected) and len(names) == len(contract.OUTPUTS) + 2 * (2 + 4)
    for name in names[len(contract.OUTPUTS) :]:
        assert found[name].shape == expected[name].shape, name
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=ACTIVATION)
    # Each pair is the op's two sides: aligned coarse bins, natural fine ones
    for level, lam in enumerate(model.config.geometry.lams):
        for size_id in range(model.config.geometry.num_sizes):
            aligned = found[contract.aligned(level, size_id)][:1].astype(np.float64)
            natural = reference.swap_align2nat(aligned, lam, model.config.pad_value)
            given = found[contract.natural(level, size_id)][:1]
            np.testing.assert_allclose(given, natural, rtol=0, atol=ACTIVATION)


def test_the_kinds_of_inner_tensors_are_chosen_by_name(small):
    model = load_checkpoint(small[0])[0].eval()
    names = DetectorGraph(model, inner=["aligned"]).output_names
    assert "aligned_1_0" in names and not any(name.startswith("natural") for name in names)
    with pytest.raises(InputError, match="inner: expected some of logits, deltas, aligned"):
        DetectorGraph(model, inner=["masks"])


def test_onnx_reference_computes_the_same_file(small):
    images = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    proto = expose(read_onnx(small[1]), ["logits_1"])
    names = [output.name for output in proto.graph.output]
    expected = ort.InferenceSession(proto.SerializeToString()).run(names, {"images": images})
    found = ReferenceEvaluator(proto).run(names, {"images": images})
    assert expected[names.index("count")].min() > 0
    for name, a, b in zip(names, expected, found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, name
        np.testing.assert_allclose(
            b.astype(float), a.astype(float), rtol=1e-5, atol=1e-4, err_msg=name
        )


def test_the_dense_swap_is_in_the_file_only_where_it_was_asked_for(tiny, small):
    def nodes(path):
        return {
            node.op_type
            for node in onnx.load(path).graph.node
            if node.domain == contract.DOMAIN
        }

    other = {contract.NORM, contract.LEADING}
    assert nodes(tiny[1]) == {contract.SWAP_WINDOWS, *other}
    assert nodes(small[1]) == {contract.SWAP, *other}


# The last one has pixels whose centres lie on windows' borders
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("output_size", [(24, 32), (50, 41), (6, 8)])
def test_a_canvas_is_pasted_as_the_windows_mask(output_size, threshold):
    """Windows of all levels and sizes in the middle and over the border, with random masks."""
    graph = DetectorGraph(build_model(SMALL))
    size, geometry, kinds = (24, 32), SMALL.geometry, metadata(graph)
    windows = geometry.windows(geometry.grid_sizes(*size))
    windows_px = inference.scaled(windows.box_px, size, output_size)
    for number in range(0, len(windows), 3):
        level, size_id = int(windows.level[number]), int(windows.size_id[number])
        y, x, lam = int(windows.y[number]), int(windows.x[number]), geometry.lams[level]
        side = geometry.side_bins(level, size_id)
        logits = 3 * torch.randn(1, side, side)
        masks = [WindowMasks(torch.tensor([0]), logits)]
        (expected,) = inference.paste(
            masks, windows_px[number : number + 1], *output_size, threshold
        ).numpy()
        rows, columns = (
            np.arange(n // 4 + 2) - 1 + side // 2 - lam * c
            for n, c in zip(size, (y, x), strict=True)
        )
        inside = np.ix_((rows >= 0) & (rows < side), (columns >= 0) & (columns < side))
        canvas = np.zeros((len(rows), len(columns)), np.float32)
        bins = np.ix_(
            rows[(rows >= 0) & (rows < side)], columns[(columns >= 0) & (columns < side)]
        )
        canvas[inside] = logits[0].sigmoid().numpy()[bins]
        mask = np.zeros(output_size, bool)
        window = np.array([level, size_id, y, x])
        detections.paste(mask, canvas, window, kinds, size, threshold)
        np.testing.assert_array_equal(mask, expected)


# --- detections of a file's outputs -----------------------------------------------------------

KINDS = {contract.WINDOWS: windows_metadata(SMALL.geometry)}
MIDDLE = np.array([0, 0, 2, 2])  # three bins of 4 px a side around (8, 8): from 2 px to 14 px


def test_pixels_on_a_windows_border_see_half_of_its_last_bins():
    """Pixels four times as large as the input's: their centres meet the border at 2 and 14."""
    mask, canvas = np.zeros((6, 6), bool), np.zeros((8, 8), np.float32)
    canvas[2:5, 2:5] = 1
    detections.paste(mask, canvas, MIDDLE, KINDS, (24, 24), 0.5)
    expected = np.zeros((6, 6), bool)
    expected[:4, 1:3] = expected[1:3, :4] = True  # a corner sees a quarter
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("cell", [(6, 2), (2, 6)], ids=["below", "beside"])
def test_a_window_beyond_the_picture_draws_nothing(cell):
    """The padding has cells too, whose windows may hold no pixel of the picture."""
    mask, canvas = np.zeros((16, 16), bool), np.ones((10, 10), np.float32)
    detections.paste(mask, canvas, np.array([0, 0, *cell]), KINDS, (16, 16), 0.5)
    assert not mask.any()


def outputs_of(boxes: list[list[float]], bins: list[float]) -> dict[str, np.ndarray]:
    """Outputs of a file for one picture, the middle window's first bins as given.

    The best box comes first, and a place behind them is empty.
    """
    count, canvas = len(boxes), np.zeros((8, 8), np.float32)
    canvas[2, 2 : 2 + len(bins)] = bins
    return {
        contract.BOXES: np.array([[*boxes, [0] * 4]], np.float32),
        contract.SCORES: np.array([[0.5 - 0.1 * k for k in range(count)] + [0]], np.float32),
        contract.LABELS: np.array([[*range(count), 0]]),
        contract.WINDOWS_OUT: np.array([[MIDDLE] * (count + 1)]),
        contract.MASKS_OUT: np.array([[canvas] * (count + 1)]),
        contract.COUNT: np.array([count]),
        contract.CONVERGED: np.array([True]),
    }


def test_a_box_beyond_the_picture_is_no_detection_and_others_are_clipped():
    beyond = [[-8, 2, -1, 9], [2, -8, 9, -1], [24, 2, 30, 9], [2, 24, 9, 30]]
    outputs = outputs_of([*beyond, [20, -3, 30, 9]], [1.0])
    (found,) = detections.detections(outputs, KINDS, [(24, 24)], [(48, 12)])
    np.testing.assert_array_equal(found["boxes"], [[10, 0, 12, 18]])  # x halved, y doubled
    np.testing.assert_array_equal(found["labels"], [4])
    assert found["masks"].shape == (1, 48, 12)


@pytest.mark.parametrize(
    ("bins", "score"), [([0.4, 0.6, 0.8], 0.5 * 0.7**2), ([0.4], 0.0)], ids=["drawn", "nothing"]
)
def test_a_score_falls_with_the_sureness_of_the_bins_that_are_drawn(bins, score):
    power = KINDS | {contract.MODEL_CONFIG: {"mask_score_power": 2.0}}
    outputs = outputs_of([[2, 2, 9, 9]], bins)
    (found,) = detections.detections(outputs, power, [(24, 24)], [(24, 24)])
    np.testing.assert_allclose(found["scores"], [score], rtol=1e-6)
    assert found["scores"].dtype == np.float32
