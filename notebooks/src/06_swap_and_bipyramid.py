# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Swap and bipyramid
#     asks: "why should big objects get bigger masks?"
#     question: >-
#       why should big objects get bigger masks, and how can that cost nothing?
#     needs: >-
#       lessons [04](04_two_ways_to_file_a_mask.ipynb) and [05](05_more_mask_pixels.ipynb): the
#       tensor, natural and aligned, and coarse bins made fine by blending. Seed: 0.
#     minutes: 85
#     seconds: 30
#     objectives:
#     - "say which inputs any mask bin of the model reads, and with which weights;"
#     - compute what a tensor bipyramid costs with and without the fused op.
#     exercises: [taps, shifted_taps, swap_align2nat, swap_elements]
# ---

# %% [markdown]
# {{ head }}

# %%
import time
from dataclasses import replace

import numpy as np
import torch

from tensormask_edu import learn, ops, reference, viz
from tensormask_edu.config import InputConfig, model_config
from tensormask_edu.evaluation import ceiling
from tensormask_edu.viz import lessons

# %% [markdown]
# ## 1. The same mask for an ant and an elephant
#
# Detectors look for objects on several **levels**: a fine grid of cells for small objects,
# coarser grids for big ones. From level to level cells are twice as far apart and windows twice
# as wide. In a **feature pyramid** every window has the same number of bins, so bins grow with
# the window. In the **tensor bipyramid** bins keep their size in pixels, so big windows have
# more of them.
#
# No network yet. Take one big object, give each way of making bins the *true* mask, and see
# what the bins can say: of the windows that would learn the object (lesson 08) we take the one
# whose bins, drawn back on the picture, fit it best.

# %%
bipyramid = model_config("tiny")
pyramid = replace(bipyramid, bipyramid=False)
image, target = learn.picture_with_truth(number=27, size_px=256)


# %%
def stored_masks(config, image, target):
    """Which objects have a window, and each one's mask as its best window stores it."""
    return ceiling.best_windows(config, image, target, InputConfig())


which, coarse = stored_masks(pyramid, image, target)
_, fine = stored_masks(bipyramid, image, target)
biggest = int(target["masks"][which].sum((1, 2)).argmax())
masks = {"feature pyramid": coarse[biggest], "tensor bipyramid": fine[biggest]}
true_mask = target["masks"][which[biggest]]
lessons.one_object(image, true_mask, masks, "The biggest object of a picture")

# %% [markdown]
# Both were given perfect knowledge; the left one just has no room to say it. *IoU* is the
# measure: pixels in both masks over pixels in either. How does it depend on size? Do the same
# for every object of many pictures.

# %%
found = {name: [] for name in masks}  # per object: long side, IoU
for number in range(learn.full_or_smoke(60, 6)):
    image, target = learn.picture_with_truth(number, size_px=256)
    for name, config in zip(masks, (pyramid, bipyramid), strict=True):
        which, drawn = stored_masks(config, image, target)
        box = target["boxes"][which]
        long_px = (box[:, 2:] - box[:, :2]).amax(1)
        iou = learn.mask_iou(drawn, target["masks"][which])
        found[name] += zip(long_px.tolist(), iou, strict=True)

# %% [markdown]
# Average by size: the point at 28 px stands for objects of 20 to 40 px, and so on.

# %%
edges = (10, 20, 40, 80, 160, 320)
groups = list(zip(edges, edges[1:], strict=False))
means = {name: [] for name in found}
for name, pairs in found.items():
    for low, high in groups:
        inside = [iou for px, iou in pairs if low <= px < high]
        means[name].append(np.mean(inside or np.nan))
viz.reachable_iou([round((low * high) ** 0.5) for low, high in groups], means)

# %% [markdown]
# (The IoU axis does not begin at 0.) An object of 14 px is three or four bins long in both, and
# looks alike. From there the bipyramid climbs; the pyramid goes up and down a little: 7 x 7
# bins are 7 x 7 bins, whatever they show. This curve is a *ceiling*: a trained network reaches
# less. In the paper the bipyramid lifts mask AP (COCO's score, see the glossary) from 29.7 to
# 33.8, for large objects from 40.7 to 47.7.
#
# The same of a shape that you drag: [the explorer](../docs/explorer.md#bipyramid).
#
# ## 2. True scale

# %%
viz.bipyramid(bipyramid.geometry)

# %%
geometry = model_config("r50_fpn_1x").geometry  # the published model
for level, (stride, lam) in enumerate(zip(geometry.strides_px, geometry.lams, strict=True)):
    side = geometry.side_bins(level, size_id=1)
    window = f"{side:3} x {side:3} bins of 4 px"
    print(f"level {level}: a cell every {stride:3} px, lam {lam:2}, {window}")

# %% [markdown]
# On level k, λ = 2ᵏ, in code `lam`, is how many bipyramid bins fit along one pyramid bin. And
# here is the trouble. A mask branch is a convolution with V * U output channels. At level 5
# that would be 480² = 230,400 channels. No network has them.
#
# ## 3. The swap
#
# The way out is to predict *coarse bins on a fine grid*, and trade. In the aligned form the
# cell is the pixel, and the bin only says which window is asking. So coarse bins on a fine grid
# mean: every fine pixel answers, but only for windows in coarse steps. The outline is all
# there. What is missing are the answers for the windows in between; those change slowly, so
# interpolation fills them in. For λ = 2, and the finest cells 4 px apart:
#
# ```text
#                         cells          a window's bins     said about a window
# predicted, aligned      every 4 px     V x U of 8 px       V x U numbers, coarse
# after the swap          every 8 px     2V x 2U of 4 px     2V x 2U numbers, fine
# ```
#
# Four times the numbers per window, a quarter of the windows. On the fine grid every level is
# predicted from two maps of features: its own, laid on that grid by interpolation, plus the
# finest one (`detector.heads.MaskBranch`: resize, add, one more convolution, `fuse`).
#
# The swap has three steps:
#
# 1. `up_bilinear`: each V x U sub-tensor becomes λV × λU, by bilinear interpolation
#    (lesson 05);
# 2. `align2nat`: aligned to natural (lesson 04);
# 3. `subsample`: keep every λ-th cell in y and x, for a coarse level needs no more.

# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(1, 3, 3, 12, 14))  # lam = 2: bins are 2 cells apart
up = reference.up_bilinear(x, lam=2)
natural = reference.align2nat(up)
swapped = reference.subsample(natural, lam=2)
learn.peek(x=x, up=up, natural=natural, swapped=swapped)

# %% [markdown]
# Read the units. Before: σ_VU = λ σ_HW, bins λ cells wide. After: σ_HW = λ σ_VU, cells λ bins
# apart. The units have **swapped**, and the tensor has as many numbers as before. Only the
# steps between are λ² times larger, and a fused `swap_align2nat` never makes them. To write it
# we need to know, for one output entry, which inputs it reads.
#
# ## 4. Half cells
#
# First the bins. A coarse bin is cut into λ fine ones. A bin's value belongs to its *centre*,
# so measure from centre to centre, in coarse bins:

# %%
lessons.half_cells(num_v=3, lam=2)

# %% [markdown]
# Fine bin v, counted from 0 at the window's *edge* in this lesson, has its centre (v + 1/2)/λ
# from there, coarse bin k has it at k + 1/2. So, counted in coarse bins, v lies at
#
# ```text
# (v + 1/2)/λ − 1/2
# ```
#
# between two coarse bins, which share the weight: the nearer gets more. In PyTorch's words:
# `align_corners=False`.
#
# ### Exercise: the taps in v (10 min, ●●○)
#
# At the window's edge one of the two lies outside (-1 or V). Return it all the same.


# %%
@learn.exercise
def taps(v, lam):
    """The two coarse bins around fine bin v: a list of two pairs (index, weight)."""
    ...


# %%
learn.check(taps)

# %% [markdown]
# ## 5. And the half cell in y
#
# Now the shift of `align2nat`. Output cell y stands at input cell λy (step 3). Its λV fine bins
# are one input cell apart and centred there, so bin v looks at input cell
#
# ```text
# λy + v − (λV − 1)/2
# ```
#
# An odd number of bins has a middle one: a whole number. An even number has none: every bin
# then falls exactly between two cells, and takes the mean of both. For V = 15 this happens at
# every level but the first.
#
# ### Exercise: the taps in y (10 min, ●●○)
#
# One pair is enough where the place is a whole number; a second one of weight 0 does no harm.


# %%
@learn.exercise
def shifted_taps(v, y, lam, num_v):
    """The input cells that bin v of output cell y reads: pairs (cell, weight).

    num_v: the coarse V.
    """
    ...


# %%
learn.check(shifted_taps)

# %% [markdown]
# ## 6. Sixteen taps
#
# Two in v, two in u, two in y, two in x: at most 2⁴ = 16 input entries make one output entry,
# and each weight is a product of four.

# %%
viz.sixteen_taps(side_bins=3, lam=2, output=(4, 1, 2, 2))

# %% [markdown]
# ### Exercise: the fused op (20 min, ●●●)
#
# Loops are welcome; building `up` is not. What is outside, in v, u, y or x, counts as
# `pad_value`. `taps` and `shifted_taps` are there to be used.


# %%
@learn.exercise
def swap_align2nat(aligned, lam, pad_value=-6.0):
    """(N, V, U, H, W) -> array (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)).

    A sum over taps(v, lam), taps(u, lam),
    shifted_taps(v, y, lam, V) and shifted_taps(u, x, lam, U).
    """
    ...


# %%
learn.check(swap_align2nat)

# %% [markdown]
# Three independent ways must agree: your loops (or the reference's), the three steps above, and
# the fast PyTorch op.

# %%
loops = swap_align2nat(x, 2)
learn.compare(loops, swapped, "loops and three steps")
learn.compare(loops, ops.swap_align2nat(torch.from_numpy(x), 2), "loops and ops")

# %% [markdown]
# And a fixed number: fill a tensor by a rule, and the sum is known. It was computed by the
# arithmetic of the official CUDA kernel, so this line ties our definition to theirs.

# %%
i = np.arange(1 * 3 * 3 * 12 * 14)
ruled = (((i * 7919) % 101) / 50 - 1).reshape(1, 3, 3, 12, 14)
out = ops.swap_align2nat(torch.from_numpy(ruled), 2)
print(f"sum {out.sum().item():.4f}, expected -3024.1909")

# %% [markdown]
# ## 7. The rim
#
# A tap outside the window reads `pad_value`, and is not pulled back to the edge. So the
# outermost ⌊λ/2⌋ bins are blended with "surely not". Fill a window with object everywhere and
# see how much pad is in each bin:

# %%
lessons.rim(side_bins=3, lams=(1, 2, 4))

# %% [markdown]
# `torch.nn.functional.interpolate` clamps instead: it has no rim. Both are reasonable; only one
# is what the published weights were trained with. One line of bins through the middle of a
# window shows the difference:

# %%
ones = np.ones((1, 3, 3, 16, 16))
padded = reference.up_align2nat(ones, 4, edge="pad", pad_value=-6.0)[0, :, 6, 8, 8]
clamped = reference.up_align2nat(ones, 4, edge="clamp", pad_value=-6.0)[0, :, 6, 8, 8]
print("pad   ", padded.round(2))
print("clamp ", clamped.round(2))

# %% [markdown]
# ## 8. What the tensor between would cost
#
# How many numbers are in the tensor just before `subsample`, and how many in the result?
#
# ### Exercise: count (5 min, ●○○)


# %%
@learn.exercise
def swap_elements(num_v, num_u, height, width, lam):
    """Numbers in (the tensor before subsampling, the fused result).

    The input is (V, U, H, W).
    """
    ...


# %%
learn.check(swap_elements)

# %% [markdown]
# Now the published model on a photo of 800 x 1344 pixels: 15 x 15 bins on the finest grid of
# 200 x 336 cells.

# %%
counts = [swap_elements(15, 15, 200, 336, lam) for lam in geometry.lams]
between, fused = (np.array(column) * 4 / 2**20 for column in zip(*counts, strict=True))
names = [f"{level}\nλ = {lam}" for level, lam in enumerate(geometry.lams)]
lessons.memory_bars(names, between, fused)

# %% [markdown]
# The fused result stays at about 60 MiB on every level; the tensor between would reach 58 GiB
# for one image. That is why the op exists. On a grid small enough to afford both:

# %%
x = torch.randn(1, 15, 15, *learn.full_or_smoke((32, 32), (16, 16)))
ways = {
    "fused": lambda: ops.swap_align2nat(x, 8),
    "three steps": lambda: ops.subsample(ops.up_align2nat(x, 8), 8),
}
for words, way in ways.items():
    start = time.perf_counter()
    numbers = way().numel()
    print(f"{words:12} {numbers} numbers in {1000 * (time.perf_counter() - start):.0f} ms")

# %% [markdown]
# The times are of this machine and this moment; the order is not.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | masks off by half a bin, growing with the level | a missing half cell in v (`v / lam`) |
# | masks off by half a finest cell | a missing half cell in y for even λV |
# | a bright border around big masks, scores off the published ones | a clamped rim |
# | memory errors only at high levels | the tensor between |
# | right at level 0, wrong above | λy written as y: at λ = 1 they are the same |
#
# ## Recap
#
# - With bins of fixed size, the reachable IoU grows with the object; with a fixed number of
#   bins it does not.
# - `swap_align2nat` = `subsample` after `align2nat` after `up_bilinear`: coarse bins on a fine
#   grid become fine bins on a coarse grid, without the tensor between.
# - Each output reads at most 16 inputs, [listed live](../docs/explorer.md#window) for any bin.
#   Even λV: half cells. Outside: `pad_value`, hence the rim.
#
# | paper | code | lesson |
# |---|---|---|
# | tensor bipyramid, section 3 | `bipyramid=True`, `detector.heads.MaskBranch` | 06, parts 1 to 3 |
# | λ, section 3 | `lam`, `geometry.lams` | 06, part 2 |
# | `up_bilinear`, section 3 | `reference.up_bilinear`, `ops.up_bilinear` | 05; 06, part 3 |
# | `up_align2nat`, section 3 | `reference.up_align2nat`, `ops.up_align2nat` | 05; 06, part 7 |
# | `subsample`, section 3 | `reference.subsample`, `ops.subsample` | 06, part 3 |
# | `swap_align2nat`, section 3 | `reference.swap_align2nat`, `ops.swap_align2nat` | 06, parts 4 to 8 |
#
# In the package `MaskBranch` makes the coarse bins on the fine grid, and
# `ops/swap_align2nat.py` swaps them fast.
#
# {{ last }}
