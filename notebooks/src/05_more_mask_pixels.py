# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: More mask pixels for free
#     asks: "can few channels give a fine mask?"
#     question: >-
#       every bin of a mask costs a channel of the network. Can nine channels give a sharp mask
#       of 15 x 15?
#     needs: >-
#       [lesson 04](04_two_ways_to_file_a_mask.ipynb): natural and aligned, with the formula of
#       `align2nat`. Seed: 0, though nothing here is random.
#     minutes: 55
#     seconds: 10
#     objectives:
#     - make bins finer by copying and by blending, also by a factor such as 1.5;
#     - say why that smears a natural mask, and hardly hurts an aligned one;
#     - write `up_align2nat`, the paper's way to a fine mask from few channels.
#     exercises: [up_nearest, exact_on_a_plane, up_bilinear, up_align2nat]
# ---

# %% [markdown]
# {{ head }}

# %%
import numpy as np
import torch

from tensormask_edu import learn, ops
from tensormask_edu.learn.lessons import lesson_05
from tensormask_edu.viz import lessons

# %% [markdown]
# ## 1. Nine numbers where 225 are wanted
#
# Two shapes touch. A **window**, a square of 15 x 15 pixels, is centred on the ellipse, and its
# mask shall tell the ellipse from the rectangle.

# %%
shapes = lesson_05.touching()  # (2, 32, 32)
window = (15, 15)  # y, x of the cell that the window is centred on
lesson_05.scene(shapes, window, side_px=15)

# %% [markdown]
# *The dash-dotted square is the window. It holds the ellipse and half of the rectangle.*
#
# A network makes such masks by a convolution with one channel per **bin**: 15 x 15 bins, 225
# channels. Suppose we afford nine, 3 x 3 bins of 5 pixels each. We skip the network and take
# what a very good one would say: the window of each place has the mask of the shape whose
# centre is nearer. Half-way between two shapes it is not sure, and over a few pixels its mask
# passes from one to the other, as values between 0 and 1.

# %%
LAM = 5  # fine bins along one coarse bin
fine_truth = lesson_05.perfect_natural(shapes, side_bins=15, lam=1)
natural = lesson_05.perfect_natural(shapes, side_bins=3, lam=LAM)
learn.peek(fine_truth=fine_truth, natural=natural)
y, x = window
truth = fine_truth[0, :, :, y, x] >= 0.5
masks = {"15 x 15 bins": fine_truth[0, :, :, y, x], "3 x 3 bins": natural[0, :, :, y, x]}
lessons.beside(truth, masks)

# %% [markdown]
# *The same window with 225 bins and with nine; the darker a bin, the surer it is of the
# ellipse. The outline is open where it runs along the window's edge. IoU: pixels in both masks
# over pixels in either; 1 is perfect.*
#
# We want 15 x 15 bins from the nine. Call the ratio $\lambda$, in code `lam`: how many fine
# bins fit along a coarse one. Here $\lambda = 5$.
#
# ## 2. Copy: nearest
#
# The simplest way gives every fine bin the value of the coarse bin it lies in. For
# $\lambda = 2$ each bin becomes 2 x 2 equal ones. But $\lambda$ may be any number for which
# $\lambda V$ is whole. The paper tries 1.5: four bins become six, and some fine bins lie across
# a border.

# %%
lesson_05.centres(num_v=4, lam=1.5)

# %% [markdown]
# *Four coarse bins and six fine ones on the same length. A value belongs to the middle of its
# bin.*
#
# So ask in which coarse bin the fine bin's **centre** lies. (In parts 2 and 3 $v$ and $u$ count
# from 0 at the window's *edge*, as in the picture; lessons 03 and 04 count from its centre, and
# so does part 4.) Fine bin $v$ has its centre at $(v + \tfrac12)/\lambda$ coarse bins:
#
# $$\mathrm{out}(v, u) = \mathrm{in}\big(\lfloor (v + \tfrac12)/\lambda \rfloor,\
# \lfloor (u + \tfrac12)/\lambda \rfloor\big)$$
#
# ### Exercise: nearest (10 min, ●○○)
#
# $\lfloor\;\rfloor$ rounds down: `math.floor`. A centre that lies exactly on a border belongs
# to the bin that begins there. The result has `round(lam * V)` rows of bins.


# %%
@learn.exercise
def up_nearest(coarse, lam):
    """coarse: array (N, V, U, H, W) -> array (N, lam*V, lam*U, H, W), by copying."""
    ...


# %%
learn.check(up_nearest)

# %% [markdown]
# Stuck? Run `learn.hint("up_nearest", 1)`, then 2, then 3; `learn.solution("up_nearest")` shows
# a solution. So it is with every exercise.
#
# ## 3. Blend: bilinear
#
# Look at the picture again. Fine bin 2 has its centre a little right of the centre of coarse
# bin 1. **Linear interpolation** takes most of bin 1 and a little of bin 2.
#
# ### Exercise: say it before you see it (2 min, ●○○)
#
# Let the coarse values lie on a plane: $2v + 3u$, say. Fine values should lie on the same
# plane. Which way gets that exactly right, away from the window's edge: "nearest", "bilinear",
# "both" or "neither"?

# %%
learn.predict("exact_on_a_plane", ...)

# %%
v, u = np.mgrid[:5, :5]
plane = (2.0 * v + 3.0 * u)[None, :, :, None, None]  # (1, 5, 5, 1, 1)
v, u = (np.mgrid[:15, :15] + 0.5) / 3 - 0.5  # the fine centres, in coarse bins
wanted = (2 * v + 3 * u)[2:-2, 2:-2]  # away from the edge
nearest = up_nearest(plane, 3)[0, 2:-2, 2:-2, 0, 0]
bilinear = lesson_05.up_bilinear(plane, 3)[0, 2:-2, 2:-2, 0, 0]
errors = [float(abs(values - wanted).max()) for values in (nearest, bilinear)]
print(f"largest error: nearest {errors[0]:.2f}, bilinear {errors[1]:.2f}")
learn.check("exact_on_a_plane", *errors)

# %% [markdown]
# Now the rule. Count from centre to centre: fine bin $v$ lies at
#
# $$p = (v + \tfrac12)/\lambda - \tfrac12$$
#
# coarse bins from the centre of coarse bin 0. It lies between bins $k = \lfloor p \rfloor$ and
# $k + 1$, and bin $k$ weighs $1 - |p - k|$. The same in $u$ with $q$ and $j$; the weights are
# multiplied, so up to four coarse bins make one fine bin.
#
# At the edge a neighbour is missing: $k = -1$ or $k = V$. What lies there counts as
# `pad_value`, with its weight. (-6 stands for "surely not": the network's values are *logits*,
# and sigmoid(-6) = 0.0025. Our masks of 0 and 1 take 0.)
#
# ### Exercise: bilinear (15 min, ●●●)


# %%
@learn.exercise
def up_bilinear(coarse, lam, pad_value=-6.0):
    """coarse: array (N, V, U, H, W) -> array (N, lam*V, lam*U, H, W), by blending.

    Beyond the window's edge lies pad_value.
    """
    ...


# %%
learn.check(up_bilinear)

# %% [markdown]
# The nine numbers of our window, made into 225 in both ways:

# %%
ways = {
    "natural, nearest": up_nearest(natural, LAM),
    "natural, bilinear": up_bilinear(natural, LAM, pad_value=0.0),
}
lessons.beside(truth, {name: tensor[0, :, :, y, x] for name, tensor in ways.items()})

# %% [markdown]
# *Copies give blocks, blends a smear.*
#
# Neither finds the outline. It cannot: nine samples of a mask, five pixels apart, do not know
# where between them the border runs.
#
# ## 4. The same bins, filed under the pixel
#
# Lesson 04 had a second way to file. In the **aligned** form the entry $(v, u, y, x)$ speaks of
# the pixel at $(y, x)$ itself, for the window that sees this pixel in its bin $(v, u)$. With
# bins $\lambda$ cells apart that is the window centred at $(y - \lambda v,\ x - \lambda u)$.
# Here $v$ and $u$ count from the *centre* again.
#
# With nine channels every *pixel* now gives nine answers, one for each of nine windows, five
# cells apart. Nothing about the outline is coarse: there is an answer at every pixel. What is
# coarse are the *windows* that ask about it, every fifth alone. And from one window to the next
# the answer about one pixel seldom changes. Here are three pixels; a number stands where the
# centre of its window lies, seen from the pixel:

# %%
units = {"sigma_vu": LAM, "aligned_sigma_vu": LAM, "pad_value": 0.0}
aligned = ops.nat2align(torch.from_numpy(natural), **units).numpy()
learn.peek(natural=natural, aligned=aligned)
for pixel in ((15, 12), (15, 22), (15, 3)):
    answers = aligned[(0, ..., *pixel)]  # bin (v, u) is of the window at pixel - 5 * (v, u)
    print(f"about pixel {pixel}:\n{answers[::-1, ::-1].round(1)}")  # so turned round

# %% [markdown]
# Pixel (15, 12) is in the ellipse, (15, 22) in the rectangle, (15, 3) in neither. In a block
# the answers change slowly, from windows of the ellipse on the left to windows of the rectangle
# on the right. A blend finds the windows between quite well. Blending natural bins mixes values
# of *different pixels* instead.
#
# So the plan: **make the bins fine in the aligned form, then go to natural.**
#
# 1. `up_bilinear`: each block of V x U bins becomes $\lambda V \times \lambda U$;
# 2. `align2nat` with fine bins one cell apart: the window at $(y, x)$ finds its bin $(v, u)$ at
#    cell $(y + v,\ x + u)$.
#
# The paper calls the two together `up_align2nat`:
#
# $$F(v, u, y, x) = \mathrm{up}(\hat F)(v, u, y + v, x + u)$$
#
# ### Exercise: up_align2nat (15 min, ●●○)
#
# Use your `up_bilinear`. $\lambda V$ is odd here, so the fine bins have a middle one and `v` is
# a whole number; lesson 06 has the even case. Outside the grid: `pad_value`.


# %%
@learn.exercise
def up_align2nat(aligned, lam, pad_value=-6.0):
    """aligned: array (N, V, U, H, W), bins lam cells apart -> array (N, lam*V, lam*U, H, W).

    The result is natural, bins one cell apart.
    """
    ...


# %%
learn.check(up_align2nat)

# %% [markdown]
# With a copy in place of the blend it works too. Look at all four:

# %%
one_cell = {"pad_value": 0.0}  # fine bins are one cell apart: the default units
copied = torch.from_numpy(up_nearest(aligned, LAM))
ways["aligned, nearest"] = ops.align2nat(copied, **one_cell).numpy()
ways["aligned, bilinear"] = up_align2nat(aligned, LAM, 0.0)
lessons.beside(truth, {name: tensor[0, :, :, y, x] for name, tensor in ways.items()})

# %% [markdown]
# *Nine channels in all four. Aligned, the outline of the ellipse is there. With copies whole
# strips are answered by windows of the wrong shape.*
#
# ## 5. How much is lost?
#
# One window proves little. Take every window centred on either shape, and three ratios. At
# $\lambda = 1$ nothing is upscaled, and both forms say the same.

# %%
on_shapes = shapes.any(0)  # (32, 32)
on_shapes[:, -7:] = False  # centres so near the right border: the window hangs over it
truth_all = fine_truth[0][:, :, on_shapes].transpose(2, 0, 1) >= 0.5  # (windows, 15, 15)


def mean_iou(tensor):
    bins = tensor[0][:, :, on_shapes].transpose(2, 0, 1) >= 0.5  # (windows, 15, 15)
    return learn.mask_iou(bins, truth_all).mean()


# %%
print("lam  channels  natural bilinear  aligned nearest  aligned bilinear")
for lam, side in ((1, 15), (3, 5), (5, 3)):
    coarse = lesson_05.perfect_natural(shapes, side, lam)
    units = {"sigma_vu": lam, "aligned_sigma_vu": lam, "pad_value": 0.0}
    filed = ops.nat2align(torch.from_numpy(coarse), **units).numpy()
    copied = torch.from_numpy(up_nearest(filed, lam))
    scores = [mean_iou(up_bilinear(coarse, lam, 0.0))]
    scores += [mean_iou(ops.align2nat(copied, **one_cell).numpy())]
    scores += [mean_iou(up_align2nat(filed, lam, 0.0))]
    print(f"{lam:3} {side * side:9} {scores[0]:17.2f} {scores[1]:16.2f} {scores[2]:17.2f}")

# %% [markdown]
# That is one picture, two shapes and a network made up. A real one has to *learn* its answers,
# and the paper measured that on 80 classes of photos, in mask AP (COCO's score, more is
# better):
#
# | $\lambda$ | natural, bilinear | aligned, nearest | aligned, bilinear |
# |---|---|---|---|
# | 1.5 | 28.8 | 29.4 | 29.7 |
# | 3 | 25.4 | 28.5 | 29.5 |
# | 5 | 13.5 | 25.9 | 29.1 |
#
# From $\lambda = 1.5$ to 5 the aligned form with blends loses 0.6 points and saves nine
# channels out of ten. The natural form falls apart. Lesson 10 lets you repeat this in small.
#
# V and $\lambda$ as sliders, and a shape to drag: [the explorer](../docs/explorer.md#lam).
#
# ## 6. The package's own, and 1.5
#
# `ops.up_align2nat` does the same fast, with gradients, for every $\lambda$ with whole
# $\lambda V$. Two bins and $\lambda = 1.5$ make three:

# %%
pair = aligned[:, :2, :2, :8, :9]
package = ops.up_align2nat(torch.from_numpy(pair), 1.5)
learn.compare(up_align2nat(pair, 1.5), package, "yours and the package's, lam = 1.5")
big = ops.up_align2nat(torch.from_numpy(aligned), LAM, pad_value=0.0)
learn.compare(ways["aligned, bilinear"], big, "yours and the package's, lam = 5")

# %% [markdown]
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | masks like a chessboard, blocks as large as a coarse bin | nearest |
# | round blobs whatever the object | natural bins upscaled |
# | masks shifted by half a coarse bin | `v / lam` for `(v + 1/2) / lam - 1/2` |
# | right for whole `lam`, wrong for 1.5 | the fine bin's edge taken for its centre |
# | a faded frame around each window | none: that is `pad_value` blended in (lesson 06) |
#
# ## Recap
#
# - Upscaling bins costs no channels: nearest copies, bilinear blends and is exact on planes.
# - In the natural form it mixes pixels and smears. In the aligned form it mixes windows, which
#   nearly agree, and the outline stays.
# - `up_align2nat` = `align2nat` after `up_bilinear`.
#
# | paper | code | lesson |
# |---|---|---|
# | λ, section 3 | `lam`, `LAM` | 05, part 1 |
# | nearest upscaling, table 2b | `reference.up_nearest`, `up_nearest` | 05, part 2 |
# | `up_bilinear`, section 3 | `reference.up_bilinear`, `ops.up_bilinear` | 05, part 3 |
# | `up_align2nat`, section 3 | `reference.up_align2nat`, `ops.up_align2nat` | 05, parts 4 and 6 |
# | upscaling heads, tables 2a and 2b | `mean_iou` | 05, part 5 |
#
# **You can now** turn nine channels into 225 bins, and say when that is honest.
#
# {{ last }}
