# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Ablations in miniature
#     asks: "which idea earns what?"
#     question: >-
#       TensorMask is several ideas at once. Which of them earns what, and how would you know?
#     needs: >-
#       lessons [05](05_more_mask_pixels.ipynb), [06](06_swap_and_bipyramid.ipynb),
#       [08](08_which_window_learns_what.ipynb) and [09](09_train_it.ipynb), or their recaps.
#       Seed: 0, and others.
#     minutes: 55
#     seconds: 100
#     objectives:
#     - tell a difference between two networks from the luck of their seeds;
#     - say what each idea of the paper is worth, there and in small, and where the two
#       disagree;
#     - count, before any training, whether a second window size can help.
#     exercises: [paper_order, paired_difference, count_windows, which_earns_what]
# ---

# %% [markdown]
# {{ head }}

# %%
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tensormask_edu import learn
from tensormask_edu.ablations import coverage, scoring, stored
from tensormask_edu.ablations.budget import budget
from tensormask_edu.ablations.tables import HEADS, TABLES
from tensormask_edu.ablations.trunk import SharedTrunk
from tensormask_edu.config import InputConfig
from tensormask_edu.data import coco, stream
from tensormask_edu.detector import inference
from tensormask_edu.detector.targets import assign
from tensormask_edu.learn.lessons import lesson_10
from tensormask_edu.training import batches, schedule
from tensormask_edu.training.train import Run
from tensormask_edu.viz import ablations, film, reasons

# %% [markdown]
# ## 1. Four ideas, and a bet
#
# To learn what an idea is worth, take it out and train again: an **ablation**. The paper does
# so with a large network on COCO's photos, and scores masks by AP (lesson 09) in points, which
# are hundredths.
#
# | | the idea | instead of | table | lesson |
# |---|---|---|---|---|
# | A | masks filed in the *aligned* form, 9 channels for 225 bins (λ = 5) | natural | 2a | 04, 05 |
# | B | these bins made fine by *blending* (bilinear) | copies (nearest) | 2b | 05 |
# | C | the tensor *bipyramid*: large windows have more bins | as many in all | 2c | 06 |
# | D | windows of *two* sizes at each cell | one | 2d | 08 |
#
# ### Exercise: your bet (3 min, ●○○)
#
# Which adds most AP, which least? Lessons 05, 06 and 08 named the numbers: bet without looking.
# Choose an order, most first: "A B C D", "A C B D", "C A D B", "C D A B".

# %%
learn.predict("paper_order", ...)

# %%
places = {"A": ("2a", "λ = 5"), "B": ("2b", "λ = 5"), "C": ("2c", "bipyramid")}
places["D"] = ("2d", "official rule")
gains = {
    letter: one.paper
    for letter, (table, name) in places.items()
    for one in TABLES[table].differences
    if one.name == name
}
print("points of AP in the paper:", gains)
learn.check("paper_order", gains)

# %% [markdown]
# ## 2. A difference, or luck?
#
# No laptop repeats that. So make everything small: shapes of one class on 64 px, less than a
# million weights, 700 steps. Does the *order* survive? (Part 4.)
#
# First a trap. Training begins with random weights and shows the pictures in a random order; a
# **seed** fixes both, and another seed gives another score. Here is B in its mildest form,
# λ = 1.5, trained with three seeds beforehand and stored:

# %%
tables = stored.tables()
rows = tables["2b", stored.TRUNK]["rows"]
nearest, bilinear = (
    100 * np.array(rows[name]["AP"]) for name in ("nearest 1.5", "aligned 1.5")
)
print("nearest :", nearest.round(1))
print("bilinear:", bilinear.round(1))
ablations.by_seed(("nearest", "bilinear"), nearest, bilinear, "AP")

# %% [markdown]
# *Left: AP of both heads, a line per seed. Right: how far each line rises, on the same scale.*
#
# One run of each would prove anything: the luckiest nearest head beats two of the bilinear
# ones. But the lines are nearly parallel: a seed that is good for one head is good for the
# other. So compare **in pairs**, seed by seed, and what the two share cancels:
#
# $$\begin{gathered}
# d_s = 100\,(a_s - b_s), \quad \bar d = \frac1S \sum_s d_s \\
# e = \frac{1}{\sqrt S} \sqrt{\frac{1}{S-1} \sum_s (d_s - \bar d)^2}
# \end{gathered}$$
#
# $a_s$ and $b_s$ are the scores with seed $s$ of $S$. The root is the **standard deviation** of
# the differences, how far single ones scatter; $e$ is the **standard error**, how far their
# mean may be off. Differences of 3, 4 and 2 points have mean 3, deviation 1 and
# $e = 1/\sqrt3 = 0.58$.
#
# ### Exercise: in pairs (10 min, ●○○)


# %%
@learn.exercise
def paired_difference(better, other):
    """Arrays (S,) of scores from 0 to 1, the same S >= 2 seeds -> (mean, error), in points.

    Of better minus other.
    """
    ...


# %%
learn.check(paired_difference)

# %% [markdown]
# Your function on every pair that was stored. Beside it the error without pairs, as if each
# head had been trained with seeds of its own:

# %%
print(f"{'points of AP':26} in pairs     error without")
for name in ("1", "2a", "2b"):
    rows = tables[name, stored.TRUNK]["rows"]
    for one in TABLES[name].differences:
        better, other = (np.array(rows[head]["AP"]) for head in (one.better, one.other))
        mean, error = paired_difference(better, other)
        apart = 100 * np.sqrt((better.var(ddof=1) + other.var(ddof=1)) / len(better))
        words = f"{one.better} - {one.other}"
        print(f"{words:26} {mean:+5.1f} ± {error:.1f}     ± {apart:.1f}")

# %% [markdown]
# In pairs even the mild case is nearly five errors away from 0; without, not even one.
# But of three seeds $e$ itself is rough, and if two heads were equally good, all three signs
# would still agree once in four times.
#
# ## 3. One trunk, several heads: train it
#
# These heads share more than a seed: a **trunk**. One network finds features, boxes and
# classes; several mask heads sit on it side by side, and the mask loss is the mean of theirs.
# All draw masks for the *same* detections, so only masks differ. (That has a price: part 4.)
# Train one yourself, in a few minutes: idea A, two heads with nine channels each, λ = 5,
# and a new seed.

# %%
folder, seed = Path(tempfile.mkdtemp()), 3
steps, train, val = learn.full_or_smoke((700, 1200, 60), (4, 8, 4))
small = replace(budget("lesson"), steps=steps, train=train, val=val)
pictures = small.write_pictures(folder, progress=False)
training = coco.CocoFolder(pictures, "train", cache=True)
heads = {name: HEADS[name] for name in ("natural 5", "aligned 5")}
config = replace(small.model(HEADS["aligned 5"]), class_names=training.class_names)
torch.manual_seed(seed)
model = SharedTrunk(config, heads).train()
print(f"{sum(p.numel() for p in model.parameters()):,} weights, {train} pictures")

# %%
recipe = small.recipe(config, seed).train
world = stream.TrainingSet(training, InputConfig(), recipe.augment, seed)
prepared = batches.Batches(world, config, recipe.batch_size)
run, began = Run(model, recipe, folder), time.perf_counter()
for step in range(steps):
    run.train_step(prepared[step], schedule.lr_at(step / steps, recipe), began)
held_out = small.held_out(pictures)
mine = scoring.scores(model.eval(), "", held_out, small.areas, progress=False)
for score in ("IoU", "AP"):
    print(score, {head: f"{found[score]:.3f}" for head, found in mine.items()})

# %% [markdown]
# **IoU** asks for the mask alone: its overlap with the object, averaged over all windows that
# are positive by the rule of lesson 08. Your pair beside the stored ones:

# %%
rows = tables["2a", stored.TRUNK]["rows"]
for score in ("IoU", "AP"):
    gaps = 100 * (np.array(rows["aligned 5"][score]) - rows["natural 5"][score])
    yours = 100 * (mine["aligned 5"][score] - mine["natural 5"][score])
    print(f"{score:3} aligned - natural: stored {gaps.round(1)}, yours {yours:+.1f} points")

# %% [markdown]
# Your trunk has two heads and saw 1,200 pictures, the stored ones eleven and 3,000; the sign is
# the same. One held-out picture, a window per object:

# %%
picture, truth = held_out[5 % len(held_out)]
layout = config.geometry.layout([(64, 64)])
pairs = assign(truth["boxes"], config, layout)  # rows (window, object)
firsts = [pairs[pairs[:, 1] == thing][0] for thing in pairs[:, 1].unique()]
window, thing = torch.stack(firsts).unbind(1)
places, panels = layout.windows[window], {"truth": truth["masks"][thing]}
with torch.inference_mode():
    outputs = model.by_head(model.network(model.batch([picture / 255])))
    for name, output in outputs.items():
        logits = list(model.network.mask_logits(output, torch.zeros_like(window), places))
        drawn = inference.paste(logits, places.box_px, 64, 64)  # (m, 64, 64)
        overlap = learn.mask_iou(drawn, panels["truth"]).mean()
        panels[f"{name}\nmean IoU {overlap:.2f}"] = drawn
film.film_strip(picture, panels, "The same windows, nine channels, two ways to file")

# %% [markdown]
# *Left: the truth. Middle and right: what your network's two heads draw in the same windows.*
# Blended from 3 x 3 natural bins, round and square objects alike become diamonds. The aligned
# head finds edges, and now and then a piece of a neighbour.
#
# ## 4. Beside the paper
#
# Now all that is stored. "Each by itself" is the paper's way: every row a network of its own.


# %%
everything = list(lesson_10.differences(tables))
ablations.beside_the_paper(everything)

# %% [markdown]
# *Marks: one per seed. Table 1 compares heads that upscale nothing.*
#
# On the trunk every sign agrees, in every seed, and so does the growth with λ. And the order?
# Each idea by itself:


# %%
chosen = {"A": "2a aligned, λ = 5", "B": "2b bilinear, λ = 5", "C": "2c bipyramid"}
chosen |= {"D, by the text": "2d two sizes, paper's rule"}
chosen |= {"D, by the code": "2d two sizes, official rule"}
for letter, row in chosen.items():
    ((_, paper, ours),) = (one for one in everything if one[0] == row)
    seeds = np.array(ours[stored.ALONE])
    by_seed = ", ".join(f"{points:4.1f}" for points in seeds)
    print(f"{letter:15} by seed {by_seed}; mean {seeds.mean():4.1f}; the paper {paper}")
points = tables["2c", stored.ALONE]["differences"][0]["points"]
for size in ("small", "medium", "large"):
    print(f"C, {size} objects: {np.mean(points['IoU' + size[0]]):+.1f} points of IoU")

# %% [markdown]
# **In part.** The means stand as in the paper, A C B D. But A and C change places from seed to
# seed: three seeds cannot tell them apart; D alone is surely last. And the distance is gone:
# there A earns nearly four times as much as C, here the same.
#
# **C** earns thrice the paper's 4.1, and as there most on large objects. A likely reason, not
# tested: without the bipyramid our windows have 5 or 7 bins a side, the paper's 15.
#
# **A**: the paper's natural head falls off a cliff at λ = 5, ours down a slope. Where nothing
# is upscaled (table 1) the paper finds both within 0.2 points; ours are far apart. Short
# training is the suspect: twice the steps take a third off the gap in IoU, in every seed.
#
# **B** beats A on the trunk, and there the trunk is wrong: its features serve eleven heads,
# most of them smooth. Nearest, which is not, falls below natural at λ = 5; in the paper, and
# here by itself, it lies above. So on a trunk compare nearest with bilinear alone.
#
# The same question reaches back to lesson 02: what did each step from DeepMask on add? Each
# detector got steps for some 90 CPU seconds. (AR100: the share of objects found by the best 100
# masks, averaged over the IoUs that AP asks for; without classes.)

# %%
for name in ("ancestors", "roi"):
    table = tables[name, stored.ALONE]
    for one in table["differences"]:
        by_seed = np.round(one["points"][table["judged"]], 1).tolist()
        print(f"{one['better']} - {one['other']}: {table['judged']} {by_seed} points, by seed")

# %% [markdown]
# Refinement (SharpMask) and unrounded regions (RoIAlign) help, as lesson 02 says. But
# InstanceFCN lies *below* DeepMask, Mask R-CNN *below* TensorMask. That says little about
# either: InstanceFCN, whose steps are dear, got the fewest (450); Mask R-CNN's anchors (boxes
# to start from) are a first guess. With twice the steps InstanceFCN passes DeepMask, and Mask
# R-CNN is half as far behind. Who learns slowly has not lost.
#
# ## 5. Idea D: count before you train
#
# Why should a second window size help at all? Windows can be counted without any network.
#
# Let every cell have one window of 7 x 7 bins: on level 0 cells lie 4 px apart and windows are
# 28 px long, on level 1 it is 8 and 56 px. By the paper's text (lesson 08) a window takes
# objects of at least half its length, if they lie inside it. An object of 26 px is too short
# for 56. In 28 it has 1 px to spare on either side, so its centre must lie within 1 px of a
# cell, and most do not. Move an object, and make it longer:

# %%
lesson_10.gaps()

# %% [markdown]
# *Dark: many windows, by the paper's text; hatched: none. The square moves to the right from a
# place where all levels have a cell.*
#
# There is a **gap just below 28 px and just below 56 px**: too large for one level, too small
# for the next. Windows of 5 x 5 bins, 20, 40 and 80 px long, lie between and close it.
#
# The published *code* takes a stride off the window's side before it compares. So windows of 56
# px take objects from (56 - 8) / 2 = 24 px on: the levels overlap, and one size has no gap (the
# sentence's last numbers).
#
# ### Exercise: windows per object (15 min, ●●○)
#
# Do it for pictures of many objects. Lesson 08's rules "contained" and "central" are already
# in `inside`. What remains: object g **claims** window m if `inside[m, g]` and
#
# $$\mathrm{side}_m - \mathrm{slack}\cdot\mathrm{stride}_m \le 2\,\mathrm{length}_g$$
#
# with slack 0 for the text and 1 for the code. A window that several objects claim is nobody's.


# %%
@learn.exercise
def count_windows(inside, length, side, stride, slack):
    """How many windows each object alone claims: array (G,) of whole numbers.

    inside: bool (M, G), of M windows and G objects. length: (G,), of objects, px.
    side, stride: (M,), of windows, px. slack: 0 or 1.
    """
    ...


# %%
learn.check(count_windows)


# %% [markdown]
# On pictures of three worlds: the standard one, a crowded one, and nested shapes, whose centres
# nearly coincide.


# %%
def counted(world, sides, slack, pictures):
    """Your counts of all objects of a world's pictures."""
    config, counts = lesson_10.level_config(sides, slack), []
    windows = config.geometry.layout([(64, 64)]).windows
    side = (windows.box_px[:, 2] - windows.box_px[:, 0]).numpy()
    for box in coverage.boxes(world, pictures, 64):
        length = (box[:, 2:] - box[:, :2]).amax(1).clamp(min=config.smallest_scale_px / 2)
        inside = lesson_10.inside_and_central(box.numpy(), windows)
        stride = windows.stride_px.numpy()
        counts.append(count_windows(inside, length.numpy(), side, stride, slack))
    return np.concatenate(counts)


# %%
pictures = learn.full_or_smoke(coverage.PICTURES, 12)
without = {"one size": [], "two sizes": []}
for world in coverage.WORLDS.values():
    for slack in (0, 1):
        for words, sides in zip(without, ((7,), (5, 7)), strict=True):
            without[words].append(100 * (counted(world, sides, slack, pictures) == 0).mean())
names = [f"{world},\n{rule}" for world in coverage.WORLDS for rule in ("text", "code")]
title = "Objects that no window learns"
reasons.bars_side_by_side(names, without, title, ("", "percent of the objects"))

# %% [markdown]
# *Per world by the paper's text and by the code's rule.* The package counts the same:

# %%
for words, sides in (("one size", (7,)), ("two sizes", (5, 7))):
    config = lesson_10.level_config(sides, slack=0)
    package = coverage.counts(coverage.STANDARD, config, pictures)
    yours = counted(coverage.STANDARD, sides, 0, pictures)
    for name, value in (
        ("windows per object", yours.mean()),
        ("without one", (yours == 0).mean()),
    ):
        print(f"{words:9} {name:18} yours {value:.4f}, the package's {package[name]:.4f}")

# %% [markdown]
# By the text the second size saves nearly all that was lost. By the code there is little to
# save but in crowds and nests, where a window that two objects claim is lost to both, and a
# second size gives each another chance. Training agrees: by the text D gains in every
# seed, by the code nothing that three seeds can show. So coverage can explain the paper's +1.6
# if it was trained by its text. If by the published code, other reasons must do: twice the
# positive windows, finer steps of scale, COCO's crowds.
#
# ## 6. Your conclusion
#
# ### Exercise: one line (5 min, ●○○)
#
# Which idea earns what? Write one sentence that you would defend before the authors.

# %%
learn.explain("which_earns_what", ...)

# %% [markdown]
# All rows: [the paper's tables in miniature](../docs/ablations.md); your own:
# `tensormask-edu ablate 2a 2b --seeds 0 1 2`.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | a "gain" that is gone with another seed | one run of each: pair them, several seeds |
# | all heads equal, IoU near 0.4 | too few steps: masks have not taken off |
#
# ## Recap
#
# - An ablation takes one idea out. Compare seed by seed: what both share cancels.
# - Aligned beats natural the more, the fewer channels there are, in small as in the paper. How
#   *much* an idea adds does not carry over.
# - A second size closes a gap in *coverage*, which the text's rule has and the code's has not.
#
# | paper | code | lesson |
# |---|---|---|
# | upscaling heads, table 2a, section on results | `HEADS`, `SharedTrunk` | 10, parts 1 to 4 |
# | blending, table 2b, same section | `stored.tables` | 10, parts 1 to 4 |
# | bipyramid, table 2c, same section | `TABLES`, `beside_the_paper` | 10, part 4 |
# | window sizes, table 2d, same section | `count_windows`, `coverage.counts` | 10, part 5 |
#
# {{ last }}
