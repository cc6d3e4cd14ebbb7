"""What both sides of a file agree on: names of ops, tensors, metadata.

These strings stand here alone: the exporter writes them; sessions, the verifier, the engine
builder and the TensorRT plugin read them.

next: shapes.py
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

# The custom ops. Their PyTorch twins are `swap_align2nat` and `swap_align2nat_windows` in
# tensormask_edu.ops.
DOMAIN = "tensormask_edu"
DOMAIN_VERSION = 1
OPSET = 20  # of the standard ops around them; explicit INT8 Q/DQ needs at least 19
IR_VERSION = 9  # of the file format: the oldest that opset 20 needs; ONNX Runtime 1.17 reads it
SWAP = "SwapAlign2Nat"
SWAP_WINDOWS = "SwapAlign2NatWindows"
NORM = "InstanceNormalization"  # a standard name in our domain: `bodies.InstanceNormalization`
LEADING = "Identity"  # another: `onnx_file/leading.py` says why
LAM = "lam"
PAD_VALUE = "pad_value"
# V and U of x, and how many cells are read at once, for the body of SWAP_WINDOWS alone: what
# follows from them is worked out once
BINS_V, BINS_U, RUN = "bins_v", "bins_u", "run_cells"

# How TensorRT's parser finds the plugin of a node. The namespace must be written on every node:
# with it the parser prefers a registered plugin to the function body of the same name, without
# it the body always wins.
PLUGIN_ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": "1"}

# What a file's weights and activations may be; `quantise.py` makes "int8" of the first
Precision = Literal["float32", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")

# Input: (N, 3, H, W) float32 RGB in [0, 1]; H, W multiples of the metadata's padding_px
IMAGES = "images"
# Its free dimensions by name: H = rows * padding_px, W = columns * padding_px
BATCH, ROWS, COLUMNS = ("batch", "rows", "columns")

# Outputs: D = min(detections_per_image, candidates) places per image, of which the first
# `count` are detections, best first; beyond them boxes, scores, labels, windows and masks are
# 0. Lengths are pixels of `images`; boxes are not clipped. Names, shapes and types are the same
# in every precision.
BOXES = "boxes"  # (N, D, 4) float32 xyxy
SCORES = "scores"  # (N, D) float32, descending
LABELS = "labels"  # (N, D) int64
WINDOWS_OUT = "windows"  # (N, D, 4) int64 (level, size_id, y, x), where each mask lives
# (N, D, P, Q) float32 probabilities of bins, each mask on a *canvas*: a grid over the whole
# picture and a border, the same for all levels. `runtimes/detections.py` reads it
MASKS_OUT = "masks"
COUNT = "count"  # (N,) int64
CONVERGED = "nms_converged"  # (N,) bool: the iterations sufficed, the result is greedy NMS's
OUTPUTS = (BOXES, SCORES, LABELS, WINDOWS_OUT, MASKS_OUT, COUNT, CONVERGED)
CANVAS_BORDER = 2  # P = H / strides_px[0] + 2, Q = W / strides_px[0] + 2


# Inner tensors by kind. Logits and deltas, the raw outputs, are in every file by these names:
# `verify` (or anyone) can add them to the outputs. `--inner` leaves them there and computes the
# mask tensors too. Level l has H_l x W_l cells of A windows; there are K classes.
Inner = Literal["logits", "deltas", "aligned", "natural"]
INNER: tuple[Inner, ...] = ("logits", "deltas", "aligned", "natural")


def logits(level: int) -> str:
    """(N, A*K, H_l, W_l) class logits, channel size_id*K + k."""
    return f"logits_{level}"


def deltas(level: int) -> str:
    """(N, A*4, H_l, W_l) weighted box deltas, channel size_id*4 + (dx, dy, dw, dh)."""
    return f"deltas_{level}"


def aligned(level: int, size_id: int) -> str:
    """(N, V, U, H, W) mask logits before the level's `swap_align2nat`.

    In the bipyramid H x W is level 0's grid on every level.
    """
    return f"aligned_{level}_{size_id}"


def natural(level: int, size_id: int) -> str:
    """(N, lam*V, lam*U, H_l, W_l) mask logits of all windows of one level and size."""
    return f"natural_{level}_{size_id}"


# Metadata: every value is JSON. The manifest beside an engine repeats these keys.
METADATA_PREFIX = "tensormask_edu."
CLASS_NAMES = METADATA_PREFIX + "class_names"
# Per level and size: level, size_id, stride_px, side_px, side_bins, bin_px
WINDOWS = METADATA_PREFIX + "windows"
STRIDES_PX = METADATA_PREFIX + "strides_px"
LAMS = METADATA_PREFIX + "lams"
PADDING = METADATA_PREFIX + "pad_value"
PREPROCESSING = METADATA_PREFIX + "preprocessing"  # padding_px, padding_colour, ...
# The model's configuration, with the number of candidates of the file
MODEL_CONFIG = METADATA_PREFIX + "model_config"
INPUT_CONFIG = METADATA_PREFIX + "input_config"
# candidates, detections, nms_iterations, masks, precision, portable
DETECTOR = METADATA_PREFIX + "detector"
SAMPLES = METADATA_PREFIX + "samples"  # small inputs with the outputs that PyTorch gave
VERSIONS = METADATA_PREFIX + "versions"
WEIGHTS_SHA256 = METADATA_PREFIX + "weights_sha256"
QUANTISATION = METADATA_PREFIX + "quantisation"  # of an INT8 file: `quantise.Quantisation`


class Window(TypedDict):
    """A kind of window: `geometry.py`'s numbers for one level and size."""

    level: int
    size_id: int
    stride_px: int
    side_px: int
    side_bins: int
    bin_px: int


class Preprocessing(TypedDict):
    """What a caller does to pictures; more is told in words."""

    padding_px: int
    padding_colour: tuple[float, float, float]


class Detector(TypedDict):
    """How the file was made; `precision` and others stand beside it."""

    candidates: int
    detections: int


class Sample(TypedDict):
    """A small input with what PyTorch gave, see `onnx_file/samples.py`."""

    pixels: str
    shape: tuple[int, int, int]
    raw: dict[str, list[float]]
    count: int
    boxes: list[tuple[float, float, float, float]]
    scores: list[float]
    labels: list[int]
    masks: str
    masks_shape: tuple[int, int, int]


# What a value under a key is: what is read of a file is checked by it, once, before it is used
METADATA: dict[str, Any] = {
    CLASS_NAMES: list[str],
    WINDOWS: list[Window],
    STRIDES_PX: list[int],
    LAMS: list[int],
    PADDING: float,
    PREPROCESSING: Preprocessing,
    MODEL_CONFIG: dict[str, Any],
    INPUT_CONFIG: dict[str, Any],
    DETECTOR: Detector,
    SAMPLES: list[Sample],
    VERSIONS: dict[str, Any],
    WEIGHTS_SHA256: str,
    QUANTISATION: dict[str, Any],
}
# Without these nothing can be made of a file's outputs
NEEDED = (CLASS_NAMES, DETECTOR, INPUT_CONFIG, PREPROCESSING, STRIDES_PX, WINDOWS)
