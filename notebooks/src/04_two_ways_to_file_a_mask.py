# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Two ways to file a mask
#     asks: "natural or aligned?"
#     question: >-
#       a network must store many small masks, one for each place in the image. Under which
#       address should it file each value: under the *window* the value belongs to, or under the
#       *pixel* it speaks of?
#     needs: "PyTorch and NumPy, and nothing about TensorMask. Seed: 0."
#     minutes: 60
#     seconds: 10
#     objectives:
#     - "say where any mask value lives, in the natural and in the aligned form;"
#     - move a whole tensor from one form to the other, with loops and with strides alone.
#     exercises: [window_mask, nat2align, align2nat, align2nat_view]
# ---

# %% [markdown]
# {{ head }}

# %%
import numpy as np
import torch

from tensormask_edu import learn, ops, reference, viz
from tensormask_edu.learn.lessons import lesson_03, lesson_04
from tensormask_edu.viz import gallery, lessons

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A wall of windows
#
# (You come from lesson 03? Part 1 repeats it; go on with part 2.) Lay a grid of **cells** over
# an image, here one every 16 pixels. At each cell hangs a **window**, a square centred on the
# cell. Each window holds a small mask of one object, here the triangle, as seen from there: 5 x
# 5 numbers, its **bins**. A bin is 1 if the pixel in its middle is object, else 0.

# %%
image, truth, _, _ = learn.stored_sample("data/sample.npz")
triangle = truth["masks"][4]
wall = lesson_03.natural_tensor(triangle.astype(float), 5, 5, sigma_hw=16, sigma_vu=8)
viz.window_wall(wall, image, sigma_hw=16, sigma_vu=8, mask=triangle, window=(4, 5))

# %% [markdown]
# All these little masks together are one array of four dimensions, the **mask tensor**
# (V, U, H, W):
#
# - `y, x` choose the cell: H rows and W columns of cells;
# - `v, u` choose the bin inside that cell's window: V rows and U columns of bins.
#
# `v` goes with `y` (both run down), `u` with `x` (both run right). In memory the order is
# (N, V, U, H, W), N images: a convolution with V * U output channels gives exactly this, after
# `unflatten(1, (V, U))`.

# %%
learn.peek(wall=wall)
print(wall[:, :, 4, 5].astype(int), "is the window marked above")

# %% [markdown]
# Two lengths are at work, and each has a name:
#
# | name | what | above |
# |---|---|---|
# | σ_HW, `sigma_hw` | pixels from one cell to the next | 16 px |
# | σ_VU, `sigma_vu` | pixels from one bin to the next | 8 px |
# | α = σ_VU / σ_HW, `alpha` | cells from one bin to the next | 0.5 |
#
# For most of this lesson α = 1: bins are as far apart as cells. Then "one bin down" and "one
# cell down" are the same step, and every bin of every window lies exactly on a cell.
#
# ## 2. One pixel, nine answers
#
# Make it tiny: a mask of 7 x 7 pixels, a cell at every pixel, windows of 3 x 3 bins.
# `natural_of` copies what each window sees.

# %%
tiny = gallery.small_mask().astype(float)
natural = viz.natural_of(tiny, side_bins=3)
learn.peek(tiny=tiny, natural=natural)
print("the mask\n", tiny.astype(int))
print("the window at (2, 4)\n", natural[:, :, 2, 4].astype(int))

# %% [markdown]
# Bins count from the window's *centre*: with V = 3, `v` is -1, 0 or 1, and its array index is
# `v + 1`. So bin `(v, u)` of the window at `(y, x)` speaks of pixel `(y + v, x + u)`.
#
# Turn that round. Which entries speak of pixel (3, 3)? Nine of them, in nine different windows:
# the window one cell *above* sees it one bin *below* its centre, and so on.

# %%
for v in (-1, 0, 1):
    for u in (-1, 0, 1):
        value = natural[v + 1, u + 1, 3 - v, 3 - u]
        print(f"window ({3 - v}, {3 - u}), bin ({v:2}, {u:2}): {value:.0f}")

# %% [markdown]
# All nine agree, for here they were copied from one mask. In a network nine different places
# would have to come to the same answer about one pixel. That is the idea behind the second way
# to file.
#
# ## 3. The two representations
#
# Both walls below hold the same values. Follow the purple dots: all that is said about pixel
# (3, 3). Follow the green crosses: the mask of window (2, 2).

# %%
viz.two_representations(natural)

# %% [markdown]
# - **Natural**, filed under the window. A block is one window's mask, ready to use. What is
#   known about one pixel is scattered.
# - **Aligned**, filed under the pixel. A block is one pixel's nine answers. One window's mask
#   is scattered: its bin `v` lies `v` blocks further down.
#
# Now the formulas. F is natural, F̂ aligned, α = 1:
#
# ```text
# F̂(v, u, y, x) = F(v, u, y − v, x − u)        nat2align
# F(v, u, y, x) = F̂(v, u, y + v, x + u)        align2nat
# ```
#
# Only `y` and `x` move; `v` and `u` stay.
#
# **Why care?** A convolution's output at (y, x) is computed from features *at* (y, x). In the
# aligned form all it has to know is this one pixel: does it belong to the object of the window
# here, one cell up, two to the left? In the natural form the same features must describe pixels
# up to V/2 cells away. The paper measures the difference (lesson 10): it grows as bins get
# coarser.
#
# Move the pointer over the right wall, or drag the sliders: (y, x) is the pixel, filled, and
# the window, dashed, stays one cell up and left of it. Near the border some dots drop out of
# the left wall: beyond the grid there is no window to speak of that pixel.

# %%
lesson_04.two_ways(natural)

# %% [markdown]
# ## 4. Exercise: read one window (10 min, ●○○)
#
# You have the aligned tensor and want the mask of the window at `(y, x)`. Collect it, bin by
# bin. Outside the grid nobody said anything: there the answer is `pad_value`. It is -6 because
# the network stores *logits*: sigmoid(-6) = 0.0025, "surely not object".


# %%
@learn.exercise
def window_mask(aligned, y, x, pad_value=-6.0):
    """The window centred at cell (y, x).

    aligned: array (V, U, H, W), V and U odd -> array (V, U).
    """
    # v counts from the centre: v = index - (V - 1) // 2
    ...


# %%
learn.check(window_mask)

# %% [markdown]
# Stuck? Run `learn.hint("window_mask", 1)`, then 2, then 3; `learn.solution("window_mask")`
# shows a solution. So it is with every exercise.
#
# ## 5. Exercise: refile the whole tensor (10 min, ●●○)
#
# Now all windows at once, in the other direction: from natural to aligned. In the check by hand
# every value is the name of its pixel, 10 * row + column. Aligned, every block must then hold
# one name nine times.


# %%
@learn.exercise
def nat2align(natural, pad_value=-6.0):
    """natural: array (N, V, U, H, W), alpha = 1 -> array of the same shape, aligned."""
    # aligned (v, u, y, x) = natural (v, u, y - v, x - u);
    # pad_value where y - v or x - u is outside
    ...


# %%
learn.check(nat2align)

# %% [markdown]
# ## 6. There and back: what gets lost
#
# Refile twice and compare, the way there by your own function. Use a random tensor: windows
# that do *not* agree, so that nothing is equal by luck.

# %%
x = rng.normal(size=(1, 3, 3, 7, 7))
back = reference.align2nat(nat2align(x))
returned = np.isclose(back, x)[0]
learn.compare(x[..., 1:-1, 1:-1], back[..., 1:-1, 1:-1], "interior")
learn.compare(x, back, "everything")

# %%
title = "Which entries of a natural tensor survive nat2align, then align2nat"
lessons.survivors(returned, title)

# %% [markdown]
# The lost ones are bins that hang over the image's edge. They spoke of a pixel that does not
# exist, so the aligned form has no place for them; on the way back they read `pad_value`.
# Inside, nothing is lost: filing is only moving.
#
# ## 7. The shear, and a step longer than a cell
#
# Look at one column of cells only, so that the tensor is a (v, y) plane. `align2nat` slides row
# `v` by `v` cells. Columns become diagonals: a **shear**.

# %%
viz.diagonal_shear()

# %% [markdown]
# Now let bins lie further apart: σ_VU = 2 σ_HW, so α = 2. A window of 3 bins then spans 5
# cells and skips every second pixel; row `v` slides by αv cells:
#
# ```text
# F(v, u, y, x) = F̂(v, u, y + αv, x + αu)        align2nat
# ```
#
# (If αv is no whole number, the value between two entries is interpolated linearly. The package
# does that; here α is whole.)
#
# To see the rows slide, for α = 1, 2, 3: [the explorer](../docs/explorer.md#shear).

# %%
names = 10.0 * np.arange(7)[:, None] + np.arange(7)  # every value names its pixel
aligned = np.broadcast_to(names, (1, 3, 3, 7, 7))
# aligned_sigma_vu: pixels between the bins of the input. They could differ from the result's,
# sigma_vu (the paper's appendix A.1); here they are the same.
one_apart = reference.align2nat(aligned)
two_apart = reference.align2nat(aligned, sigma_vu=2, aligned_sigma_vu=2)
print("alpha = 1\n", one_apart[0, :, :, 3, 3])
print("alpha = 2\n", two_apart[0, :, :, 3, 3])

# %% [markdown]
# ## 8. Exercise: align2nat with a unit (10 min, ●●○)
#
# `sigma_hw` is 1 here, so `sigma_vu` counts cells and equals α.


# %%
@learn.exercise
def align2nat(aligned, sigma_vu=1, pad_value=-6.0):
    """aligned: array (N, V, U, H, W) -> array of the same shape, natural.

    Bins are sigma_vu cells apart.
    """
    ...


# %%
learn.check(align2nat)

# %% [markdown]
# ## 9. No loop at all: the same memory, read along the diagonal
#
# A tensor is a strip of numbers and five **strides**: how far to walk in the strip for one step
# along each axis. Entry (n, v, u, y, x) lies at
#
# ```text
# n·s_n + v·s_v + u·s_u + y·s_y + x·s_x
# ```
#
# `align2nat` asks for (v, u, y + v, x + u) instead:
#
# ```text
# n·s_n + v·s_v + u·s_u + (y + v)·s_y + (x + u)·s_x
# ```
#
# Collect what belongs to `v` and to `u`, and read off new strides: the strip stays, two strides
# change. To keep the border in the strip, it is padded first; then `v` may count from 0.

# %%
small = torch.from_numpy(aligned[:, :, :, :5, :5].copy())
padded = torch.nn.functional.pad(small, (1, 1, 1, 1), value=-6.0)
learn.peek(small=small, padded=padded)
print("strides of padded, in n v u y x:", padded.stride())

# %% [markdown]
# ### Exercise: the strided view (15 min, ●●●)
#
# `tensor.as_strided(size, strides)` gives a view of the same memory. Do not assume how the
# memory is laid out: ask the tensor.


# %%
@learn.exercise
def align2nat_view(padded, height, width):
    """The natural tensor as a view of the aligned one.

    padded: tensor (N, V, U, height + V - 1, width + U - 1) -> (N, V, U, height, width)
    """
    ...


# %%
learn.check(align2nat_view)

# %% [markdown]
# A transform of millions of values that moves none of them. (The package does not use this
# trick: it reads value by value, which works for any units and in exported files too. The
# numbers are equal.)

# %%
view = align2nat_view(padded, 5, 5)
learn.compare(view, ops.align2nat(small), "view and ops.align2nat")
addresses = [tensor.untyped_storage().data_ptr() for tensor in (view, padded)]
print("the same memory:", addresses[0] == addresses[1])

# %% [markdown]
# ## 10. The way back: where gradients go
#
# Training compares *natural* masks with the truth, while the network predicts *aligned* ones.
# So the gradient of one window's loss runs backwards through `align2nat`. Where does it arrive?

# %%
x = torch.zeros(1, 3, 3, 5, 5, requires_grad=True)
ops.align2nat(x)[0, :, :, 2, 2].sum().backward()
lessons.gradient_paths(x.grad[0], "One window's gradient, in the aligned tensor")

# %% [markdown]
# In nine blocks, one bin each: every pixel of the window is told about itself. And because the
# transform only moves values, its derivative is again such a move. PyTorch's own numerical test
# agrees:

# %%
x = torch.rand(1, 3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
for transform in (ops.align2nat, ops.nat2align):
    print(f"gradcheck of {transform.__name__}:", torch.autograd.gradcheck(transform, x))

# %% [markdown]
# Wrong input gets an answer too, not a wall of indices:

# %%
try:
    ops.align2nat(torch.rand(1, 9, 5, 5))
except ValueError as error:
    print(error)

# %% [markdown]
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | masks that look doubled or smeared, worst for wide windows | natural read as aligned, or the reverse |
# | masks mirrored about the window's centre | a sign: `y - v` for `y + v` |
# | masks shifted by half a window | bins counted from the corner |
# | a strip of the far side at the image's border | a negative index, or `np.roll` |
# | masks transposed | v paired with x |
#
# ## Recap
#
# - A mask tensor (V, U, H, W) has a window of V x U bins at each of H x W cells.
# - Natural files a value under its window, aligned under its pixel. `nat2align` and `align2nat`
#   refile.
# - With α = 1 that is a shear: one stride per axis changes. Beyond the border lies `pad_value`.
#
# | paper | code | lesson |
# |---|---|---|
# | (V, U, H, W), section 3 | `x.shape[1:]` | 04, part 1 |
# | σ_HW, σ_VU, α, section 3 | `sigma_hw`, `sigma_vu`, their ratio | 04, parts 1 and 7 |
# | natural F, section 3 | `natural` | 04, part 3 |
# | aligned F̂, section 3 | `aligned` | 04, part 3 |
# | `align2nat`, section 3 | `reference.align2nat`, `ops.align2nat` | 04, parts 7 to 10 |
# | `nat2align`, section 3 | `reference.nat2align`, `ops.nat2align` | 04, part 5 |
# | unequal units, appendix A.1 | `aligned_sigma_hw`, `aligned_sigma_vu` | 04, part 7 |
#
# Lesson 05 will make few bins into many; lesson 06 uses that to give big objects bigger masks.
#
# {{ last }}
