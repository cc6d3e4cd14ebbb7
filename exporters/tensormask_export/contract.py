"""What both sides of an exported file agree on: op names, attributes, tensor names, metadata keys.

The only place for these strings: the exporter writes them, the verifier, the engine builder and the TensorRT
plugin read them.

next: graph.py
"""

from __future__ import annotations

# The custom ops. Their PyTorch twins are `swap_align2nat` and `swap_align2nat_windows` in tensormask_edu.ops.
DOMAIN = "tensormask_edu"
DOMAIN_VERSION = 1
OPSET = 20  # of the standard ops around them; explicit INT8 Q/DQ needs at least 19
SWAP = "SwapAlign2Nat"
SWAP_WINDOWS = "SwapAlign2NatWindows"
NORM = "InstanceNormalization"  # a standard name in our domain: see `onnx_body.InstanceNormalization`
LAM = "lam"
PAD_VALUE = "pad_value"

# How TensorRT's parser finds the plugin of a node. The namespace must be written on every node: with it the
# parser prefers a registered plugin to the function body of the same name, without it the body always wins.
PLUGIN_ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": "1"}

# Tensors
IMAGES = "images"  # (N, 3, H, W) float32 RGB in [0, 1]; H, W multiples of the metadata's padding_px
BATCH, ROWS, COLUMNS = "batch", "rows", "columns"  # names of the free dimensions; rows * padding_px = H


def logits(level: int) -> str:
    """(N, A*K, H_l, W_l) class logits, channel size_id*K + k."""
    return f"logits_{level}"


def deltas(level: int) -> str:
    """(N, A*4, H_l, W_l) weighted box deltas, channel size_id*4 + (dx, dy, dw, dh)."""
    return f"deltas_{level}"


def masks(level: int, size_id: int) -> str:
    """(N, V, U, H_l, W_l) natural mask logits of all windows; only with dense masks."""
    return f"masks_{level}_{size_id}"


def window_scores(level: int, size_id: int) -> str:
    """(N, B) probability of each chosen window's best class, descending."""
    return f"window_scores_{level}_{size_id}"


def window_index(level: int, size_id: int) -> str:
    """(N, B, 3) int64 (n, y, x) of the chosen windows: image and cell."""
    return f"window_index_{level}_{size_id}"


def window_masks(level: int, size_id: int) -> str:
    """(N, B, V, U) natural mask logits of the chosen windows."""
    return f"window_masks_{level}_{size_id}"


# Metadata: every value is JSON. The manifest beside an engine repeats these keys.
METADATA_PREFIX = "tensormask_edu."
CLASS_NAMES = METADATA_PREFIX + "class_names"
WINDOWS = METADATA_PREFIX + "windows"
STRIDES_PX = METADATA_PREFIX + "strides_px"
LAMS = METADATA_PREFIX + "lams"
PADDING = METADATA_PREFIX + "pad_value"
PREPROCESSING = METADATA_PREFIX + "preprocessing"
MODEL_CONFIG = METADATA_PREFIX + "model_config"
INPUT_CONFIG = METADATA_PREFIX + "input_config"
MASKS = METADATA_PREFIX + "masks"
VERSIONS = METADATA_PREFIX + "versions"
WEIGHTS_SHA256 = METADATA_PREFIX + "weights_sha256"
