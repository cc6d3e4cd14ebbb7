# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: A mask is a 4-D tensor
#     asks: "what do V, U, H, W and their units mean?"
#     question: >-
#       a network gives an array of fixed shape. An image holds any number of objects, anywhere.
#       What array has room for a mask of each?
#     needs: "PyTorch and NumPy, and nothing about TensorMask. Seed: 0."
#     minutes: 45
#     seconds: 10
#     objectives:
#     - say what each of the four axes V, U, H and W counts;
#     - turn bins and cells into pixels with the two units of length and their ratio, alpha;
#     - make the tensor of a mask with loops, and say how a convolution gives one.
#     exercises: [windows_that_see, units, natural_tensor, why_one_convolution]
# ---

# %% [markdown]
# {{ head }}

# %%
import numpy as np
import torch

from tensormask_edu import learn
from tensormask_edu.learn.lessons import lesson_03

# %% [markdown]
# ## 1. One window, 25 numbers
#
# Look at one place of an image through a square. Cut the square into 5 x 5 parts and write 1
# into each whose middle lies on the object, here the triangle, else 0. That is a small mask.

# %%
image, truth, _, _ = learn.stored_sample("data/sample.npz")
triangle = truth["masks"][4].astype(float)  # (128, 128) of 0 and 1
wall = lesson_03.natural_tensor(triangle, 5, 5, sigma_hw=16, sigma_vu=8)
lesson_03.one_window(image, truth["masks"][4], wall[:, :, 4, 5], (4, 5), 16, 8)

# %% [markdown]
# *Left: the square at its true size. Plus signs are the places where such squares are centred.
# Right: what it holds; dark is 1.*
#
# Four words, which lesson 02 used already:
#
# - a **cell** is one of the places, here one every 16 pixels;
# - the square is the cell's **window**, centred on it;
# - a **bin** is one number of a window's mask. It stands for a part of the window, here 8 x 8
#   pixels, and here it is that of the pixel in the middle;
# - `v` and `u` number the bins of a window from its **centre**: `v` runs down, `u` right, and
#   the middle bin is (0, 0).
#
# ## 2. A wall of windows
#
# One window has room for one mask. So hang a window at *every* cell, whether there is an object
# or not. Here are all of them, drawn small so that they do not cover each other.

# %%
lesson_03.wall_over_image(image, wall, (4, 5), 16, 8)

# %% [markdown]
# *Each small grid is the window of one cell, dark where it is 1. The dash-dotted square marks
# one window twice: small, and at its true size, at which neighbours overlap.*
#
# All these masks together are one array with four axes, the **mask tensor**
# $(V, U, H, W)$:
#
# | axis | counts | index | runs |
# |---|---|---|---|
# | $V$ | rows of bins in a window | `v` | down |
# | $U$ | columns of bins in a window | `u` | right |
# | $H$ | rows of cells in the image | `y` | down |
# | $W$ | columns of cells in the image | `x` | right |
#
# Fix `y` and `x` and a window's mask is left, V x U. Several images put an axis N in front.
# [The explorer](../docs/explorer.md#walls) shows a trained model's wall, of a picture you draw.

# %%
learn.peek(wall=wall)
print(wall[:, :, 4, 5].astype(int), "is the marked window")
print(wall[:, :, 4, 6].astype(int), "is its neighbour on the right")

# %% [markdown]
# This answers the question. The shape depends on the image's size alone. An object gets a mask
# because some window is centred near it, and many windows hold nothing: this is *dense*
# prediction, with a mask where others predict a box or a class.
#
# ### Exercise: how many windows see it? (2 min, ●○○)
#
# There are 8 x 8 windows and one triangle. In how many windows is at least one bin 1: "exactly
# one", "about a dozen" or "nearly all"? Write your choice in place of the dots, quotation marks
# included.

# %%
learn.predict("windows_that_see", ...)

# %%
seeing = int((wall.max((0, 1)) > 0).sum())
print(seeing, "of", wall[0, 0].size, "windows")
learn.check("windows_that_see", seeing, wall[0, 0].size)

# %% [markdown]
# ## 3. Two units of length
#
# Bins and cells have sizes in pixels, and the two need not be the same. Each length has a name:
#
# | name | code | what | above |
# |---|---|---|---|
# | $\sigma_{HW}$ | `sigma_hw` | pixels from one cell to the next | 16 px |
# | $\sigma_{VU}$ | `sigma_vu` | pixels from one bin to the next | 8 px |
# | $\alpha = \sigma_{VU} / \sigma_{HW}$ | `alpha` | cells from one bin to the next | 0.5 |
#
# Below, cells are always 8 pixels apart and windows have 5 x 5 bins. Only $\sigma_{VU}$ grows.
# (Why would one want them to differ? Large windows from few channels: lesson 05.)

# %%
lesson_03.units_at_true_scale(sigma_hw=8, sigmas_vu=(4, 8, 16), side_bins=5)

# %% [markdown]
# *The same cell, three windows. With α = 1 every bin lies exactly on a cell; with α = 2 on
# every second one.*
#
# A window's side is $V \sigma_{VU}$ pixels: more bins or larger bins make it larger. The size
# of the tensor does not know about $\sigma_{VU}$ at all. Now where does a bin look? The window
# of cell $(y, x)$ is centred at pixel $(\sigma_{HW}\, y,\ \sigma_{HW}\, x)$, and bin $(v, u)$
# lies $\sigma_{VU}\, v$ below and $\sigma_{VU}\, u$ right of that. Pixels are named by whole
# numbers, their row and column from 0: a cell lies *on* a pixel, and the middle of a bin too.
# (So there are no halves, as RoIAlign had in lesson 02, whose cells were squares with edges.
# And in training a bin is 1 where at least half of its square is object.)
#
# $$F(v, u, y, x) = M(\sigma_{HW}\, y + \sigma_{VU}\, v,\ \ \sigma_{HW}\, x + \sigma_{VU}\, u)$$
#
# $M$ is the mask in pixels, $F$ the mask tensor. This way to file values, each under the window
# it belongs to, is called the **natural** representation; lesson 04 has another.
#
# ### Exercise: give the units (5 min, ●○○)
#
# Three tensors:
#
# | | $\sigma_{HW}$ | $\sigma_{VU}$ | V = U |
# |---|---|---|---|
# | a | 16 px | 8 px | 5 |
# | b | 4 px | 4 px | 15 |
# | c | 4 px | 8 px | 15 |
#
# Write in place of the dots: alpha of each; the side of a window of a, in pixels; and the row
# of pixels at which bin `v = -2` of the window at `y = 5` looks, in tensor a.

# %%
answers = learn.numbers("units", alpha_a=..., alpha_b=..., alpha_c=..., side_a=..., row_a=...)
learn.check("units")

# %% [markdown]
# Stuck? Run `learn.hint("units", 1)`, then 2, then 3; `learn.solution("units")` shows a
# solution. So it is with every exercise.
#
# ## 4. Tiny, by hand
#
# A mask of 4 x 4 pixels, a cell at every second pixel, windows of 3 x 3 bins, a bin at every
# pixel. So $\sigma_{HW} = 2$, $\sigma_{VU} = 1$. Each value is the name of its pixel, row and
# column counted from 1: 23 is row 2, column 3.

# %%
names = 10.0 * np.arange(1, 5)[:, None] + np.arange(1, 5)  # (4, 4)
print(names.astype(int))
tiny = lesson_03.natural_tensor(names, 3, 3, sigma_hw=2, sigma_vu=1)
learn.peek(tiny=tiny)
for y, x in ((0, 0), (1, 1)):
    print(f"the window of cell ({y}, {x})\n{tiny[:, :, y, x].astype(int)}")

# %% [markdown]
# Cell (1, 1) is at the pixel called 33, so 33 stands in the middle of its window. Cell (0, 0)
# is at 11: one row and one column of its window hang over the edge of the image. There is no
# pixel, and the value is `pad_value`, here 0.
#
# ## 5. Exercise: make the tensor (15 min, ●●○)
#
# Write the formula of part 3 as loops. Sizes: $H$ is the number of rows of pixels divided by
# `sigma_hw`, rounded up, for cells lie at 0, `sigma_hw`, 2 `sigma_hw` and so on; $W$ alike.


# %%
@learn.exercise
def natural_tensor(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    """The natural tensor of a mask.

    mask: array (h, w); num_v, num_u: odd -> array (V, U, H, W).
    """
    # v counts from the centre: v = index - (V - 1) // 2
    ...


# %%
learn.check(natural_tensor)

# %% [markdown]
# With it, look at the triangle through finer windows: cells every 8 pixels, 15 x 15 bins of 4
# pixels. Bins half as wide show more of the outline.

# %%
fine = natural_tensor(triangle, 15, 15, 8, 4)
learn.peek(wall=wall, fine=fine)
lesson_03.one_window(image, truth["masks"][4], fine[:, :, 9, 10], (9, 10), 8, 4)

# %% [markdown]
# *The window of cell (9, 10) is 60 pixels wide and holds the whole triangle.*
#
# A window is a piece of the mask, cut out around the cell. With a bin at every pixel it is
# exactly a slice:

# %%
dense = natural_tensor(triangle, 9, 9, 8, 1)
crop = triangle[72 - 4 : 72 + 5, 80 - 4 : 80 + 5]  # around pixel (8 * 9, 8 * 10)
learn.compare(dense[:, :, 9, 10], crop, "window (9, 10) and the slice")

# %% [markdown]
# ## 6. Who makes such a tensor?
#
# A network, with one convolution. A convolution with C output channels gives C numbers at every
# place of the grid. Take $C = V \cdot U$ and call them bins: `unflatten` splits the channel
# axis in two, and nothing moves.

# %%
torch.manual_seed(0)
features = torch.rand(1, 32, 8, 8)  # what a network knows about 8 x 8 places
head = torch.nn.Conv2d(32, 5 * 5, kernel_size=1)
predicted = head(features).unflatten(1, (5, 5))  # (N, V*U, H, W) -> (N, V, U, H, W)
learn.peek(features=features, predicted=predicted)

# %% [markdown]
# This head is untrained, so its windows hold noise. But we can build a convolution by hand that
# makes the natural tensor of a mask: nine kernels of 3 x 3, each with a single 1 at the bin it
# copies.

# %%
kernels = torch.eye(9).view(9, 1, 3, 3)
mask = torch.from_numpy(triangle).float()
made = torch.nn.functional.conv2d(mask[None, None], kernels, padding=1).unflatten(1, (3, 3))
learn.compare(made[0], natural_tensor(triangle, 3, 3, 1, 1), "convolution and your loops")

# %% [markdown]
# ### Exercise: one line (3 min, ●○○)
#
# Why can one convolution give the masks of *all* windows at once? Write a line in place of the
# dots, in quotation marks. Nobody grades it: ours unfolds below yours.

# %%
learn.explain("why_one_convolution", ...)

# %% [markdown]
# ## 7. What it costs
#
# The published model looks at photos of about 800 x 1344 pixels, on its finest level with a
# cell every 4 pixels and windows of 15 x 15 bins:

# %%
height, width = 800 // 4, 1344 // 4
numbers = 15 * 15 * height * width
print(f"{height * width} windows, {numbers / 1e6:.1f} million numbers, {numbers * 4 >> 20} MiB")

# %% [markdown]
# 67,200 masks for a photo with perhaps ten objects. That is the price of looking everywhere.
# Which of them learn, and which are thrown away, is the topic of lesson 08.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | a mask of the right shape at the wrong place | `sigma_hw` and `sigma_vu` swapped |
# | windows that begin at their cell | `v` counted from the corner |
# | masks that are far too small or large when pasted | the window's side taken as V - 1 bins |
# | masks transposed | `v` paired with `x`, or channels read as (U, V) |
# | garbage after a reshape | `view(N, H, W, V, U)` of a tensor whose channels come first |
#
# ## Recap
#
# - A mask tensor (V, U, H, W) has a window of V x U bins at each of H x W cells.
# - $\sigma_{HW}$ is pixels per cell, $\sigma_{VU}$ pixels per bin, α their ratio. A window is
#   $V \sigma_{VU}$ wide.
# - Natural: bin (v, u) of cell (y, x) speaks of pixel
#   $(\sigma_{HW} y + \sigma_{VU} v,\ \sigma_{HW} x + \sigma_{VU} u)$.
# - One convolution with V * U channels makes it.
#
# | paper | code | lesson |
# |---|---|---|
# | (V, U, H, W), section 3 | `wall`, `unflatten` | 03, parts 2 and 6 |
# | σ_HW, σ_VU, section 3 | `sigma_hw`, `sigma_vu` | 03, part 3 |
# | α = σ_VU / σ_HW, section 3 | `units` | 03, part 3 |
# | natural representation F, section 3 | `natural_tensor` | 03, parts 3 to 5 |
# | mask prediction head, section 4 | `head` | 03, part 6 |
#
# **You can now** read any entry of a mask tensor as a statement about one pixel.
#
# {{ last }}
