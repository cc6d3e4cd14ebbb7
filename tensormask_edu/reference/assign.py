"""The label assignment, one window and one object at a time (paper, section 4).

The rules are the official code's. Where the paper's differ, an argument takes either.

next: reference/losses.py
"""

from __future__ import annotations

import numpy as np


def assign(
    windows: np.ndarray,
    units: np.ndarray,
    slacks: np.ndarray,
    boxes: np.ndarray,
    smallest: float,
) -> np.ndarray:
    """The object each window is positive for, -1 for none or for more than one (uniqueness).

    Args:
        windows: (M, 4) xyxy pixels. boxes: (G, 4) xyxy pixels.
        units, slacks: (M,) pixels, and smallest: as `is_positive` takes them for one window.

    Returns:
        (M,) int64.
    """
    assigned = np.full(len(windows), -1, dtype=np.int64)  # (M,)
    for m, (window, unit, slack) in enumerate(zip(windows, units, slacks, strict=True)):
        claims = [
            g for g, box in enumerate(boxes) if is_positive(window, unit, slack, box, smallest)
        ]
        if len(claims) == 1:  # a window claimed twice could learn neither object
            assigned[m] = claims[0]
    return assigned


def is_positive(
    window: np.ndarray, unit: float, slack: float, box: np.ndarray, smallest: float
) -> bool:
    """Whether a window is positive for one object, uniqueness aside.

    Args:
        window, box: (4,) xyxy pixels.
        unit: how far apart their centres may be, pixels: the level's stride (official) or bin
            (paper).
        slack: what the window may be longer than twice the object, pixels: the stride or
            nothing.
        smallest: an object is treated as at least half this long, pixels.
    """
    contained = (
        window[0] <= box[0]
        and window[1] <= box[1]
        and window[2] >= box[2]
        and window[3] >= box[3]
    )
    side = max(window[2] - window[0], window[3] - window[1])  # the longer one
    longest = max(box[2] - box[0], box[3] - box[1])
    fits = side - slack <= max(2 * longest, smallest)
    dx = (box[0] + box[2]) / 2 - (window[0] + window[2]) / 2
    dy = (box[1] + box[3]) / 2 - (window[1] + window[3]) / 2
    central = np.sqrt(dx * dx + dy * dy) <= unit  # the border counts as inside
    return bool(contained and fits and central)


def box_deltas(window: np.ndarray, box: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """(dx, dy, dw, dh) from a window to a box, each (4,) xyxy pixels, times the weights."""
    sides = np.array([window[2] - window[0], window[3] - window[1]])
    shift = (box[:2] + box[2:] - window[:2] - window[2:]) / 2 / sides  # (dx, dy) in windows
    scale = np.log((box[2:] - box[:2]) / sides)  # (dw, dh): 0 for a box as large as the window
    return np.concatenate([shift, scale]) * np.array(weights)  # (4,)
