"""The convolution of an upsampled map on the coarse grid, against the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tensormask_edu.detector.upsampled import (
    convolved,
    convolved_in_graph,
    in_graph,
    pays,
    upsampled,
)

SAME = 1e-12  # float64: sums of some hundred products in another order


def both(m, weight, factor, size):
    plain = F.conv2d(upsampled(m, factor, size), weight, padding=1)
    return plain, convolved(m, weight, factor, size)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6),
    st.sampled_from((2, 3, 4, 8)), st.integers(0, 3), st.integers(0, 3), st.booleans(),
)  # fmt: skip
def test_values_and_gradients_are_those_of_the_plain_way(
    n, channels, h, w, factor, less_h, less_w, channels_last
):
    size = max(1, factor * h - less_h), max(1, factor * w - less_w)
    random = torch.Generator().manual_seed(h * w)
    m = torch.randn(n, channels, h, w, dtype=torch.float64, generator=random)
    if channels_last:
        m = m.to(memory_format=torch.channels_last)
    weight = torch.randn(5, channels, 3, 3, dtype=torch.float64, generator=random)
    m.requires_grad_(), weight.requires_grad_()
    plain, ours = both(m, weight, factor, size)
    torch.testing.assert_close(ours, plain, rtol=SAME, atol=SAME)
    grad = torch.randn(plain.shape, dtype=torch.float64, generator=random)
    for expected, got in zip(
        torch.autograd.grad(plain, (m, weight), grad),
        torch.autograd.grad(ours, (m, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=SAME, atol=100 * SAME)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6),
    st.sampled_from((2, 3, 4, 8)), st.integers(0, 3), st.integers(0, 3),
)  # fmt: skip
def test_a_graph_computes_the_same(n, channels, h, w, factor, less_h, less_w):
    size = max(1, factor * h - less_h), max(1, factor * w - less_w)
    random = torch.Generator().manual_seed(h * w)
    m = torch.randn(n, channels, h, w, dtype=torch.float64, generator=random)
    weight = torch.randn(5, channels, 3, 3, dtype=torch.float64, generator=random)
    plain = F.conv2d(upsampled(m, factor, size), weight, padding=1)
    ours = convolved_in_graph(m, weight, factor, size)
    torch.testing.assert_close(ours, plain, rtol=SAME, atol=SAME)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_a_graph_in_full_precision_is_one_that_is_traced():
    found = []

    def note(m):
        found.append((in_graph(m), in_graph(m.half()), pays(m)))
        return m + 1

    torch.jit.trace(note, torch.zeros(1), check_trace=False)
    assert found == [(True, False, False)] and not in_graph(torch.zeros(1))


def test_no_images_give_no_images():
    m, weight = torch.zeros(0, 4, 3, 2), torch.zeros(6, 4, 3, 3)
    assert convolved(m, weight, 2, (6, 4)).shape == (0, 6, 6, 4)


def test_taps_kept_from_an_inference_serve_a_training():
    weight = torch.ones(2, 3, 3, 3, requires_grad=True)
    with torch.inference_mode():
        convolved(torch.ones(1, 3, 7, 5), weight, 4, (27, 19))
    convolved(torch.ones(1, 3, 7, 5), weight, 4, (27, 19)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_the_plain_way(dtype):
    assert not pays(torch.zeros(1, dtype=dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(torch.zeros(1))
    assert pays(torch.zeros(1))
