# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Four ancestors
#     asks: "what did earlier methods store per place?"
#     question: >-
#       a network gives a few numbers at every place of a picture. Where among them is the mask
#       of an object, and how do you read it out?
#     needs: >-
#       PyTorch, and what a mask is ([lesson 01](01_overlap_world.ipynb)). Seed: 0.
#     minutes: 55
#     seconds: 15
#     objectives:
#     - say what DeepMask, SharpMask, InstanceFCN and Mask R-CNN each store for a picture;
#     - read one mask out of a vector, out of score maps and out of a box;
#     - say what each of them lacks, and so why TensorMask was built.
#     exercises: [read_vector, read_maps, read_box, fewest]
# ---

# %% [markdown]
# {{ head }}

# %%
import numpy as np
import torch

from tensormask_edu import learn
from tensormask_edu.ancestors import deepmask, instance_fcn, mask_rcnn, sharpmask
from tensormask_edu.learn.lessons import lesson_02
from tensormask_edu.viz import lessons

# %% [markdown]
# ## 1. One object, four storages
#
# A convolutional network answers on a grid: the same few numbers at every **place**, which is
# also called a **cell**. In a real one places lie 4 to 16 pixels apart. Here there is one at
# every pixel, and no network: we write what a perfect one would say.
#
# The picture has a moon and a star. Around every place lies a **window**, here a square of
# 15 x 15 places, and its mask should show the object nearest to its middle. A number of that
# mask is a **bin**. So the window around place (12, 11) has to show the
# moon, without the corner of the star.

# %%
shapes = lesson_02.moon_and_star()  # (2, 24, 24)
windows = lesson_02.perfect_windows(shapes, side=15)  # (15, 15, 24, 24), a mask per place
stored = {
    "vectors": windows.reshape(15 * 15, 24, 24),  # DeepMask
    "coarse": windows.reshape(5, 3, 5, 3, 24, 24).max((1, 3)).reshape(25, 24, 24),  # SharpMask
    "fine": shapes.any(0).astype(float),  # SharpMask and Mask R-CNN: moon or star
    "maps": lesson_02.perfect_maps(windows, parts=5),  # InstanceFCN
}
learn.peek(**stored)
place, box = (12, 11), (4, 7, 16, 19)  # y, x; x0, y0, x1, y1
lesson_02.storages(shapes, stored, *place, box)

# %% [markdown]
# *Above: the window, dashed, and its mask; dark is object. Below: where four detectors keep
# that mask. (Of the 25 moons a part is missing where the window that asks is the star's.)*
#
# We read it out of each, in order of age.
#
# ## 2. DeepMask ([2015](https://arxiv.org/abs/1506.06204)): a vector at every place
#
# The stripe above is what stands at one place: a **vector**, the mask flattened row by row. For
# $V$ rows and $U$ columns the network $f$ has $V \cdot U$ output channels, and the window
# around place $(y, x)$ has the mask
#
# $$\mathrm{mask}(v, u) = f(v\,U + u,\ y,\ x), \qquad 0 \le v < V,\ 0 \le u < U$$
#
# The published network has 56 x 56 numbers at a place every 16 pixels, and a score: is there an
# object in the middle? Its window is always 160 pixels wide. For objects of other sizes the
# picture is resized, in steps of $\sqrt 2$.
#
# ### Exercise: fold a vector (5 min, ●○○)


# %%
@learn.exercise
def read_vector(vectors, num_v, num_u, y, x):
    """The mask of the window around place (y, x).

    vectors: array (V * U, H, W), channels first -> array (V, U).
    """
    ...


# %%
learn.check(read_vector)

# %% [markdown]
# Stuck? Run `learn.hint("read_vector", 1)`, then 2, then 3; `learn.solution("read_vector")`
# shows a solution. So it is with every exercise.
#
# The package has all four detectors, small. This one is untrained; its masks of 12 x 12 are
# noise, but filed as they should be:

# %%
torch.manual_seed(0)
network = deepmask.DeepMask().eval()
with torch.no_grad():
    codes = network.code(torch.rand(1, 3, 64, 64))[2]  # what it knows: 256 numbers a place
    vectors, theirs = network.mask(codes)[0].numpy(), network.natural(codes)[0]
learn.peek(codes=codes, vectors=vectors)
learn.compare(read_vector(vectors, 12, 12, 2, 3), theirs[:, :, 2, 3], "yours and DeepMask's")

# %% [markdown]
# ## 3. SharpMask ([2016](https://arxiv.org/abs/1603.08695)): a coarse mask, and another look
#
# SharpMask keeps a vector, but of a *coarse* mask, and lets it grow in steps. Each doubles it
# and joins it with a map of the picture in which borders are sharp. (Ours triples 5 x 5 bins,
# to get 15.) The fine map knows what is moon or star, not which. The coarse mask knows which:

# %%
y, x = place
truth = read_vector(stored["vectors"], 15, 15, y, x) > 0.5
coarse = read_vector(stored["coarse"], 5, 5, y, x)
larger = np.kron(coarse, np.ones((3, 3)))  # each number nine times
cut = stored["fine"][y - 7 : y + 8, x - 7 : x + 8]  # the fine map, where the window is
refined = np.maximum(larger + cut - 1, 0)  # a sum, then ReLU
lessons.beside(truth, {"coarse": coarse, "joined": refined})

# %% [markdown]
# *IoU: pixels in both masks over pixels in either.*
#
# In the network the sum is learnt: a convolution over mask and map. The map's share is the same
# for all windows, so it is worked out once per picture and each window cuts out its part.
# (TensorMask does without: lesson 05.)

# %%
torch.manual_seed(0)
module = sharpmask.Refinement(map_channels=96, channels=16)
fine, masks = torch.rand(1, 96, 16, 16), torch.rand(3, 16, 8, 8)  # three windows, M of each
corners = torch.tensor([[0, 2, 3], [0, 8, 8], [0, 0, 5]])  # image, y, x
with torch.no_grad():
    together = module.side_by_side(masks, fine, corners)
    cut_out = module.refined(masks, module.horizontal(fine), corners)
learn.compare(together, cut_out, "per window, and once per picture")

# %% [markdown]
# ## 4. InstanceFCN ([2016](https://arxiv.org/abs/1603.08678)): a map for each part of a window
#
# Why should one place know a whole window? InstanceFCN asks each pixel about *itself*. It has
# k x k **score maps** of the whole picture. Map (a, b) answers: "suppose you lie in part (a, b)
# of a window. Are you on its object?" A window's mask is a jigsaw: a piece of each map.
#
# Move the window, with the pointer on the left picture or with the sliders. Here k = 3, and
# windows have 9 x 9 places. Watch the purple pixel: the same pixel, asked through another map
# wherever the window goes. (It answers 0 where the window is nearer to the star, or would be
# centred outside the picture.)

# %%
lesson_02.jigsaw(shapes[:, 2:22:2, 2:22:2], pixel=(6, 4))

# %% [markdown]
# A piece lies in its map exactly where it lies in the picture. With $m$ places along a window
# and $i, j$ from 0 at its corner:
#
# $$\mathrm{mask}(i, j) = f\big(a\,k + b,\ \ y + i - \lfloor m/2 \rfloor,\ \
# x + j - \lfloor m/2 \rfloor\big), \qquad
# a = \lfloor i\,k / m \rfloor,\quad b = \lfloor j\,k / m \rfloor$$
#
# ### Exercise: put the jigsaw together (12 min, ●●○)
#
# `side` is $m$, odd and a multiple of k. Where the window hangs over the picture's edge, nobody
# answered: `pad_value`. It is -6 because networks give *logits*: sigmoid(-6) = 0.0025, "surely
# not".


# %%
@learn.exercise
def read_maps(maps, side, y, x, pad_value=-6.0):
    """The mask of the window around place (y, x).

    maps: array (k * k, H, W), map a * k + b for part (a, b) -> array (side, side).
    """
    ...


# %%
learn.check(read_maps)

# %%
torch.manual_seed(0)
network = instance_fcn.InstanceFCN().eval()  # k = 5, windows of 15 x 15
with torch.no_grad():
    maps, _ = network.maps(torch.rand(1, 3, 64, 64))
learn.peek(maps=maps)
theirs = instance_fcn.assemble(maps, index=torch.tensor([[0, 5, 2]]), side=15)[0]
learn.compare(read_maps(maps[0].numpy(), 15, 5, 2), theirs, "yours and InstanceFCN's")

# %% [markdown]
# ## 5. Mask R-CNN ([2017](https://arxiv.org/abs/1703.06870)): a grid in each box
#
# Mask R-CNN stores no mask at places. A first stage proposes boxes. A second cuts out of the
# **features**, the maps by which the network knows the picture, what lies in a box, as a small
# grid of fixed size, and makes a mask of that.
#
# Boxes begin and end anywhere, cells do not. **RoIAlign** rounds nothing: it puts a point into
# the middle of each bin of the box and blends the four cells around it.

# %%
lesson_02.points_of_bins(*lesson_02.BY_HAND)

# %% [markdown]
# *A grid of 4 x 5 cells and a box of 2 x 2 bins. Lines: what the first bin blends.*
#
# Bin $(i, j)$ of the box $(x_0, y_0, x_1, y_1)$, one of $m \times m$, has its middle
#
# $$p = y_0 + \big(i + \tfrac12\big)\,\frac{y_1 - y_0}{m} - \tfrac12$$
#
# rows below the centre of the first cell, which itself lies half a cell from the grid's edge.
# Rows $\lfloor p \rfloor$ and $\lfloor p \rfloor + 1$ weigh $1 - |p - \mathrm{row}|$. The
# same along x, with $q$; the two weights are multiplied.
#
# In the picture $p = 0.6 + \tfrac12 \cdot 1.2 - 0.5 = 0.7$ and
# $q = 1.1 + \tfrac12 \cdot 1.3 - 0.5 = 1.25$. Of the four cells only (1, 2) is not 0. It holds
# 4 and weighs $0.7 \cdot 0.25$: the bin reads 0.7.
#
# ### Exercise: read a box (15 min, ●●●)
#
# One map of features; `bins` is $m$. The box is given in cells from the map's edge, so row 0
# reaches from y = 0 to y = 1. Less than half a cell from the edge, or beyond it, there are
# cells on one side only. There $p < 0$ becomes 0 and $p > H - 1$ becomes $H - 1$, whose row
# $\lfloor p \rfloor + 1$ is outside and weighs 0; $q$ alike.


# %%
@learn.exercise
def read_box(features, box, bins):
    """What lies in a box.

    features: array (H, W); box: x0, y0, x1, y1, numbers in cells -> array (bins, bins).
    """
    ...


# %%
learn.check(read_box)

# %% [markdown]
# The layer before the masks of the package's Mask R-CNN averages 2 x 2 points in each bin: read
# twice as many bins and average. And torchvision, whose layer it is, leaves out the
# $- \tfrac12$ there, so add a half to the box: two RoIAligns may lie half a cell apart.

# %%
torch.manual_seed(0)
pooler = mask_rcnn.MaskRCNN(num_classes=1).model.roi_heads.mask_roi_pool
sides = {"0": 32, "1": 16, "2": 8}  # levels of a picture of 128 px; the finest is read here
levels = {name: torch.rand(1, 2, side, side).double() for name, side in sides.items()}
box_px = torch.tensor([[30.0, 20.0, 70.0, 64.0]]).double()
theirs = pooler(levels, [box_px], [(128, 128)])[0]  # (2, 14, 14): of two maps
in_cells = (box_px[0] / 4 + 0.5).tolist()  # a cell every 4 px
points = np.stack([read_box(features, in_cells, 28) for features in levels["0"][0].numpy()])
mine = points.reshape(2, 14, 2, 14, 2).mean((2, 4))
learn.compare(mine, theirs, "yours and Mask R-CNN's")

# %% [markdown]
# Do fractions matter? RoIPool, used before, rounded box and bins to whole cells. With cells of
# 16 px its mask AP (COCO's score, more is better) was 26.9; RoIAlign made it 30.3.
#
# ## 6. Four readings, one mask
#
# The moon, read by your functions out of all four storages:

# %%
in_box = np.zeros((15, 15))  # the window; the box begins at its row 2, column 0
in_box[2:14, 0:12] = read_box(stored["fine"], box, bins=12)
readings = {
    "DeepMask": read_vector(stored["vectors"], 15, 15, y, x),
    "SharpMask": refined,
    "InstanceFCN": read_maps(stored["maps"], 15, y, x, pad_value=0.0),
    "Mask R-CNN": in_box,
}
lessons.beside(truth, readings)

# %% [markdown]
# *Out of perfect storages all four read the same mask.* (Mask R-CNN because no star is in the
# box: our map is the foreground. To tell two shapes in one box apart a real one runs a network
# in each box.)
#
# So what differs is how much is stored, and how hard it is for a network to get it right.
#
# ### Exercise: who stores the fewest? (3 min, ●○○)
#
# For a picture of 800 x 1280 pixels, who keeps the fewest numbers for masks: "DeepMask",
# 56 x 56 at a place every 16 pixels; "InstanceFCN", 5 x 5 at a place every 8 pixels; or
# "Mask R-CNN", 28 x 28 in each of the best 100 boxes?

# %%
learn.predict("fewest", ...)

# %%
counts = {
    "DeepMask": 56 * 56 * (800 // 16) * (1280 // 16),
    "InstanceFCN": 5 * 5 * (800 // 8) * (1280 // 8),
    "Mask R-CNN": 28 * 28 * 100,
}
for name, count in counts.items():
    print(f"{name:12} {count:10,} numbers")
learn.check("fewest", *counts.values())

# %% [markdown]
# (SharpMask makes its coarse masks, 3,200 numbers each, for the best windows alone.)
#
# ## 7. What each lacks
#
# | | good | missing |
# |---|---|---|
# | DeepMask | a mask at every place | one place must know pixels half a window away; its channels are a list, in which no two are neighbours |
# | SharpMask | sharp borders | the same, and window by window |
# | InstanceFCN | each number speaks of its own pixel | few parts, copied as blocks |
# | Mask R-CNN | a grid aligned with the box, whatever its size | no box, no mask |
#
# The first three know one size of window and resize the picture. **TensorMask** takes what is
# good of each:
#
# - a mask at every place, as in DeepMask, but with V and U as axes of a tensor, not a list
#   (lesson 03, where this way to file is called *natural*);
# - numbers filed under the pixel they speak of, as in InstanceFCN (lesson 04: *aligned*), but
#   blended, not copied (lesson 05): aligned, as RoIAlign's grid is, without a crop;
# - larger windows have more bins, and the picture is not resized (lesson 06).
#
# It does not beat Mask R-CNN: mask AP on COCO's test-dev split is 35.5 against 36.8, with the
# same backbone, and a mask at every place takes longer. It shows that masks without boxes come
# that close.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | a mask like woven threads | a vector folded with another row length |
# | a jigsaw with pieces in the wrong places | map b * k + a read for a * k + b |
# | steps where parts meet | none: two windows disagree, and blocks are copied (lesson 05) |
# | masks half a cell off | `- 1/2` forgotten in RoIAlign, or there twice |
#
# ## Recap
#
# - DeepMask: V * U numbers at a place are the window's mask.
# - SharpMask: a coarse one, joined with finer maps.
# - InstanceFCN: k x k maps; a window takes a piece of each, where it lies.
# - Mask R-CNN: features, cut out in each box by blending.
#
# | paper | code | lesson |
# |---|---|---|
# | natural representation, section 3 | `read_vector`, `natural_tensor` | 02, part 2; 03, part 3 |
# | aligned representation, section 3 | `read_maps`, `align2nat` | 02, part 4; 04, part 7 |
# | InstanceFCN is aligned, nearest: appendix A.2 | `assemble`, `up_nearest` | 02, part 4; 05, part 4 |
# | RoIAlign (He et al. 2017) | `read_box`, `mask_roi_pool` | 02, part 5 |
#
# **You can now** read a mask out of whatever a detector stores, and say why TensorMask stores
# it otherwise.
#
# {{ last }}
