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
#       lessons [05](05_more_mask_pixels.ipynb), [06](06_swap_and_bipyramid.ipynb) and
#       [08](08_which_window_learns_what.ipynb), or their recaps; AP from
#       [09](09_train_it.ipynb). Seed: 0, and others, which are the point.
#     minutes: 55
#     seconds: 150
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
# | | the idea | instead of | lesson |
# |---|---|---|---|
# | A | masks filed in the *aligned* form, where 9 channels make 225 bins (λ = 5) | natural | 04, 05 |
# | B | these bins made fine by *blending* (bilinear) | copies (nearest) | 05 |
# | C | the tensor *bipyramid*: large windows have more bins | as many in all windows | 06 |
# | D | windows of *two* sizes at each cell | one | 08 |
#
# ### Exercise: your bet (3 min, ●○○)
#
# Which adds most AP, which least? Choose one of the orders, most first: "A B C D", "A C B D",
# "C A D B", "C D A B".

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
# million weights, 700 steps. Does the *order* survive?
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
# The luckiest nearest head beats two of the bilinear ones: one run of each would prove
# anything. But the lines are nearly parallel. A seed that is good for one head is good for the
# other. So compare **in pairs**, seed by seed, and what the two share cancels:
#
# $$\begin{gathered}
# d_s = 100\,(a_s - b_s), \quad \bar d = \frac1S \sum_s d_s \\
# e = \frac{1}{\sqrt S} \sqrt{\frac{1}{S-1} \sum_s (d_s - \bar d)^2}
# \end{gathered}$$
#
# $a_s$ and $b_s$ are the scores with seed $s$ of $S$. The root is the **standard deviation** of
# the differences, how far single ones scatter; $e$ is the **standard error**, how far their
# mean may be off. Numbers: differences of 3, 4 and 2 points have mean 3, standard deviation 1
# and $e = 1/\sqrt3 = 0.58$.
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
# All draw masks for the *same* detections, so only masks differ.
#
# Train one yourself, in a minute or two: idea A, two heads with nine channels each, λ = 5, and
# a new seed.

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
# **IoU** asks for the mask alone: at every window that is positive by the rule of lesson 08 the
# head draws its mask, and the overlaps with the object are averaged. No class, no score, no
# box. Your pair beside the stored ones:

# %%
rows = tables["2a", stored.TRUNK]["rows"]
for score in ("IoU", "AP"):
    gaps = 100 * (np.array(rows["aligned 5"][score]) - rows["natural 5"][score])
    yours = 100 * (mine["aligned 5"][score] - mine["natural 5"][score])
    print(f"{score:3} aligned - natural: stored {gaps.round(1)}, yours {yours:+.1f} points")

# %% [markdown]
# Your trunk carries two heads and saw 1,200 pictures, the stored ones eleven and 3,000; the
# sign is the same. What it looks like in one held-out picture, a window per object:

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
# *Left: the true outlines, of the visible parts. Middle and right: what the two heads of your
# network draw in the same windows.* Blended from 3 x 3 natural bins, round and square objects
# alike become diamonds. The aligned head finds edges, and now and then a piece of a neighbour.
#
# ## 4. Beside the paper
#
# Now everything that is stored, with the paper's numbers. "Each by itself" is the paper's way:
# every row a network of its own.

# %%
missing = [name for name in TABLES if not {name} & {table for table, _ in tables}]
for name, form in sorted(tables):
    print(f"table {name:9} {form}")
print("not stored yet:", ", ".join(missing) or "nothing")
ablations.beside_the_paper(list(lesson_10.differences(tables)))

# %% [markdown]
# *Grey: the paper, on COCO. Marks: ours, one per seed. Table 1 compares heads that upscale
# nothing.*
#
# **What agrees**, on the trunk: every sign, in every seed, and the growth with λ. That is what
# a miniature can show.
#
# **What does not**: sizes. The paper's natural head falls off a cliff at λ = 5, ours down a
# slope. The paper finds natural and aligned within 0.2 points where nothing is upscaled
# (table 1); ours are far apart. Short training is the suspect: a natural head says every pixel
# of a window from the features at its middle, and learns that slowly. Twice the steps take a
# third off the gap in IoU, in every seed.
#
# **What the trunk gets wrong**: its features serve all heads, most of which are smooth. Nearest
# reads them in another way and is served badly: with λ = 5 it falls below natural, and in the
# paper it lies far above (25.9 and 13.5). So on a trunk compare nearest with bilinear alone,
# and trust the sign. Trained by itself, nearest is above natural in every seed.
#
# The same question reaches back to lesson 02: what did each step from DeepMask on add? (AR100:
# the share of objects found by the best 100 masks, averaged over the IoUs that AP asks for. It
# needs no classes. Where one number stands, one seed is stored: part 2 says what that proves.)

# %%
for name in ("ancestors", "roi"):
    table = tables.get((name, stored.ALONE), {"differences": []})
    for one in table["differences"]:
        points = np.round(one["points"][table["judged"]], 1).tolist()
        print(f"{one['better']} - {one['other']}: {table['judged']} {points} points, by seed")
    if len(table["differences"]) < len(TABLES[name].differences):
        print(f"{name}: not all of it is stored yet")

# %% [markdown]
# ## 5. Idea D: count before you train
#
# A second window size gave the paper 1.6 points. Why should it help at all? An idea about
# windows can be judged without any network: count them.
#
# Let every cell have one window of 7 x 7 bins. On level 0 cells lie 4 px apart and windows are
# 28 px long, on level 1 cells lie 8 px apart and windows are 56 px long. By the paper's text
# (lesson 08) a window takes objects of at least half its length, if they lie inside it. An
# object of 26 px is too short for 56. In 28 it has 1 px to spare on either side, so its centre
# must lie within 1 px of a cell, and most do not. Move an object, and make it longer:

# %%
lesson_10.gaps()

# %% [markdown]
# *Dark: many windows. Hatched: none, by the paper's text. The object is a square, moved to the
# right from a place where all levels have a cell.*
#
# There is a **gap just below 28 px and just below 56 px**: too large for one level, too small
# for the next. Windows of 5 x 5 bins, 20, 40 and 80 px long, lie between and close it.
#
# The published *code* takes a stride off the window's side before it compares. So windows of
# 56 px take objects from (56 - 8) / 2 = 24 px on: the levels overlap, and one size has no gap
# (the last numbers of the sentence above).
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
# nearly coincide. (As in lesson 08, tiny objects count as long enough for the smallest window.)


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
# By the text the second size saves nearly everything that was lost. By the code there is little
# to save in the standard world; in crowds there is, because a window that two objects claim is
# lost to both, and a second size gives each another chance. So coverage can explain
# the paper's +1.6 if it was trained by its text. If it was trained with the published code,
# other reasons must do: twice the positive windows, finer steps of scale, COCO's crowds. No
# count tells these apart.
#
# ## 6. Your conclusion
#
# ### Exercise: one line (5 min, ●○○)
#
# Which idea earns what? Replace the dots by one sentence that you would defend before the
# authors. Ours unfolds then.

# %%
learn.explain("which_earns_what", ...)

# %% [markdown]
# Longer and with more rows: `tensormask-edu ablate 2a 2b --seeds 0 1 2`; what is known so far:
# [the paper's tables in miniature](../docs/ablations.md).
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | a "gain" that is gone with another seed | one run of each: pair them, several seeds |
# | an error bar as wide as the gain, with parallel lines | computed without pairs |
# | nearest far below natural | a shared trunk, whose features are made for smooth heads |
# | all heads equal, IoU near 0.4 | too few steps: masks have not taken off |
# | no effect of a second window size | the code's rule, which has no gap to close |
#
# ## Recap
#
# - An ablation takes one idea out. Compare seed by seed: what both share cancels.
# - Aligned beats natural the more, the fewer channels there are; blending beats copying.
# - A second size closes a gap in *coverage*, which the text's rule has and the code's has not.
#
# | paper | code | lesson |
# |---|---|---|
# | upscaling heads, table 2a, section 5 | `HEADS`, `SharedTrunk` | 10, parts 1 to 4 |
# | nearest and bilinear, table 2b, section 5 | `stored.tables`, `paired_difference` | 10, parts 1 and 2 |
# | bipyramid, table 2c, section 5 | `TABLES`, `beside_the_paper` | 10, parts 1 and 4 |
# | window sizes, table 2d, section 5 | `count_windows`, `coverage.counts` | 10, part 5 |
# | containment, section 3.3 | `scale_rule`, `count_windows` | 10, part 5 |
#
# {{ last }}
