# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Overlap world
#     asks: 'why is "which pixel is whose" hard?'
#     question: >-
#       in a picture of things that hide each other, which pixel belongs to which of them, and
#       how is the answer written down?
#     needs: "NumPy, and nothing about TensorMask. Seed: 0."
#     minutes: 45
#     seconds: 10
#     objectives:
#     - say what is asked of a program that finds instances, and what makes it hard;
#     - make the visible masks of shapes that were drawn over each other;
#     - write a mask as run lengths and read it back, as the data set COCO stores it.
#     exercises: [visible_masks, other_order, rle_counts, mask_of_counts]
# ---

# %% [markdown]
# {{ head }}

# %%
import numpy as np

from tensormask_edu import learn, masks
from tensormask_edu.data import shapes
from tensormask_edu.learn.lessons import lesson_01

# %% [markdown]
# ## 1. Six shapes, one picture
#
# Our world is small: 64 x 64 pixels, ellipses, rectangles, triangles and stars. They are drawn
# one after the other, and a later one hides what lies below it. We drew the picture ourselves,
# so we know each shape whole, also where it is hidden.

# %%
picture = {"seed": 0, "split": "train", "index": 16, "size_px": 64}
pixels, seen, kinds = shapes.draw(**picture)
whole, _ = shapes.whole(**picture)
image = np.moveaxis(pixels, -1, 0)  # (H, W, 3) -> (3, H, W), as PyTorch has it
lesson_01.pile(image, whole, seen)

# %% [markdown]
# *Left: a solid line around what is seen of each shape, a dashed line around the whole of it.
# Right: how many shapes lie at each pixel.*
#
# Three words for the rest of the course:
#
# - an **instance** is one thing in a picture: this triangle, not "triangle";
# - its **mask** says for every pixel whether it belongs to it: an array of True and False, as
#   large as the picture;
# - a mask of what is *seen* leaves out what is hidden. Data sets store this one, and it is what
#   our network will be asked for. (A mask of the whole shape is called *amodal*.)

# %%
learn.peek(image=image, whole=whole, seen=seen)
for kind, shape, mask in zip(kinds, whole, seen, strict=True):
    name = shapes.CLASS_NAMES[kind]
    print(f"{name:10} {shape.sum():4} pixels, {mask.sum():4} of them seen")

# %% [markdown]
# ## 2. Why it is hard
#
# **A colour or a class is not enough.** Suppose a program told you, without an error, for every
# pixel whether it is some shape. That is one map, the **foreground**. Where shapes touch, the
# map is one blob, and nothing in it says where one ends.
#
# **A box is not enough.** The usual way to point at an instance is its box, the smallest
# rectangle around its mask. Boxes overlap although masks do not. Here is how much of each box
# belongs to its own shape, and how much to others.

# %%
boxes = masks.tight_boxes(seen).astype(int)  # x0, y0, x1, y1
for kind, mask, (x0, y0, x1, y1) in zip(kinds, seen, boxes, strict=True):
    own = mask[y0:y1, x0:x1].mean()
    others = seen.any(0)[y0:y1, x0:x1].mean() - own
    print(f"{shapes.CLASS_NAMES[kind]:10} own {own:4.0%}, others {others:4.0%}")

# %% [markdown]
# Now the trouble for a network. It answers place by place, all places at once. Near an edge
# between two shapes, two places almost side by side see almost the same colours and have to
# give two different masks: each that of *its* shape, with the border in the same spot, seen
# from two sides. A step to the side the answer changes altogether, and few networks are made to
# jump. How TensorMask, the network of this course, lays out its answers so that this works is
# the topic of the lessons after this one.
#
# ## 3. Exercise: who owns a pixel (10 min, ●●○)
#
# Make the visible masks yourself. The rule is that of a painter: **what is drawn later lies on
# top.** As a formula: with $S_k(y, x)$ true where shape $k$ covers a pixel, the visible part is
#
# $$M_k(y, x) = S_k(y, x) \;\text{and not}\; S_j(y, x) \;\text{for any}\; j > k.$$
#
# By hand, three shapes on 2 x 3 pixels:
#
# ```text
# shape 0   shape 1   shape 2      seen of 0   of 1    of 2
#  # # .     . # #     . # .         # . .     . . #   . # .
#  # # .     . . .     . # #         # . .     . . .   . # #
# ```


# %%
@learn.exercise
def visible_masks(whole):
    """What stays visible of shapes that are drawn one after the other.

    whole: bool array (K, H, W), in the order of drawing -> bool array (K, H, W).
    """
    ...


# %%
learn.check(visible_masks)

# %% [markdown]
# Stuck? Run `learn.hint("visible_masks", 1)`, then 2, then 3; `learn.solution("visible_masks")`
# shows a solution. So it is with every exercise.
#
# Three things must hold, and they do so in every data set of instances. No pixel is in two
# masks. Together the masks are the foreground. And yours are the masks that the data set of
# this course stores:

# %%
mine = visible_masks(whole)
print("most masks at one pixel:", mine.sum(0).max())
print("union is the foreground:", np.array_equal(mine.any(0), whole.any(0)))
learn.compare(mine, seen, "yours and the data set's")

# %% [markdown]
# ## 4. Exercise: say it before you see it (2 min, ●○○)
#
# Draw the same six shapes in the opposite order. What will change: the foreground, who owns a
# pixel, both, or nothing? Write your choice in place of the dots, with quotation marks.

# %%
learn.predict("other_order", ...)

# %%
reverse = visible_masks(whole[::-1])[::-1]  # turned back, so that mask k is shape k
foreground_changed = not np.array_equal(reverse.any(0), mine.any(0))
owners_changed = not np.array_equal(reverse, mine)
learn.check("other_order", foreground_changed, owners_changed)

# %%
lesson_01.pile(image, whole, reverse)

# %% [markdown]
# *The lines show what would be seen in the opposite order; the colours are still those of the
# first. Some masks grew, others lost a piece. The count on the right is the same.*
#
# Two pictures with the same foreground and different masks: so the masks cannot be worked out
# from the foreground. A network has to find out what lies on top of what, from the image.
#
# ## 5. A mask as a list of runs
#
# A mask of a photo has half a million pixels, mostly long stretches of the same value. The data
# set COCO, by which everyone in this field is measured, stores the lengths of the stretches:
# **run-length encoding**, RLE. It goes down the columns, one after the other.

# %%
small = lesson_01.SMALL
lesson_01.snake(small, lesson_01.rle_counts(small))

# %% [markdown]
# *Above: the mask, each pixel with its number i. Below: the same pixels in a row, cut where the
# value changes.*
#
# The rules:
#
# - pixel $i$ is at row $y = i \bmod H$ and column $x = \lfloor i / H \rfloor$, so
#   $i = x H + y$;
# - the first count is of **zeros**. If the first pixel is 1, the first count is 0;
# - zeros and ones take turns until the end, and the counts sum to $H W$.
#
# ### Exercise: mask to runs (10 min, ●●○)


# %%
@learn.exercise
def rle_counts(mask):
    """mask: bool array (H, W) -> list of run lengths, zeros first."""
    ...


# %%
learn.check(rle_counts)

# %% [markdown]
# ### Exercise: runs to mask (10 min, ●●○)


# %%
@learn.exercise
def mask_of_counts(counts, height, width):
    """counts: list of run lengths, zeros first -> bool array (height, width)."""
    ...


# %%
learn.check(mask_of_counts)

# %% [markdown]
# ## 6. There and back, and the same as everybody's
#
# The official tool for COCO's masks is `pycocotools`. It packs the counts into a short text.
# Our `masks.encode` calls it, and `masks.run_lengths` unpacks the text again. Your counts of
# all six masks beside theirs:

# %%
for mask, rle in zip(mine, masks.encode(mine), strict=True):
    counts = rle_counts(mask)
    back = mask_of_counts(counts, *mask.shape)
    same = counts == masks.run_lengths(rle["counts"]).tolist()
    size = f"{len(counts):3} runs, {len(rle['counts']):3} letters"
    print(f"{size}; same counts: {same}, same mask: {np.array_equal(back, mask)}")

# %% [markdown]
# A plain mask of 64 x 64 bits takes 512 bytes. The more ragged a border, the more runs: each
# column that the shape crosses adds two.
#
# Some questions are answered by the runs alone. The **area** of a mask, by which COCO sorts
# small, medium and large, is the sum of every second count:

# %%
for mask in mine:
    counts = rle_counts(mask)
    print(f"sum of the runs of ones {sum(counts[1::2]):4}, pixels {mask.sum():4}")

# %% [markdown]
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | a mask mirrored along the diagonal, or torn into stripes | runs read along the rows |
# | everything is object but the object | the first count taken for ones |
# | areas that sum to more than the foreground | whole shapes in place of visible parts |
# | holes where shapes overlap | the overlap taken from both |
# | a mask of what is seen is called wrong | the truth holds whole, amodal shapes |
#
# ## Recap
#
# - An instance's mask holds the pixels where it is seen. Masks of one picture do not overlap.
# - Neither the foreground nor boxes say whose a pixel is: that is the task, instance
#   segmentation.
# - RLE stores a mask as runs down the columns, zeros first.
#
# | paper | code | lesson |
# |---|---|---|
# | instance segmentation, section 1 | `data.shapes.draw` | 01, part 1 |
# | mask of an instance, section 1 | `visible_masks`, `seen` | 01, part 3 |
# | boxes against masks, section 1 | `masks.tight_boxes` | 01, part 2 |
# | COCO's masks, section 5 | `masks.encode`, `rle_counts` | 01, parts 5 and 6 |
#
# **You can now** make the masks of a crowded picture, store them and read them.
#
# {{ last }}
