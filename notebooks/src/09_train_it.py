# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Train it
#     asks: "does it learn in minutes?"
#     question: >-
#       how does a network learn to draw masks, what happens between its numbers and a finished
#       mask, and what is its score worth?
#     needs: "PyTorch. Every word of TensorMask is explained here. Seed: 0."
#     minutes: 75
#     seconds: 150
#     objectives:
#     - compute the three losses of TensorMask by hand, for single numbers;
#     - "turn a trained network's numbers into boxes and masks: decode, suppress, paste;"
#     - compute average precision, and get the number that COCO's own program gets.
#     exercises: [losses_by_hand, decode, suppress, average_precision]
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

from tensormask_edu import learn, viz
from tensormask_edu.config import InputConfig, model_config, recipe
from tensormask_edu.data import coco, shapes, stream
from tensormask_edu.detector import boxes, inference, losses
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import per_window
from tensormask_edu.evaluation import ceiling, coco_scores, results
from tensormask_edu.learn.lessons import lesson_09
from tensormask_edu.training import batches, schedule
from tensormask_edu.training.train import Run
from tensormask_edu.viz import film

generator = torch.manual_seed(0)

# %% [markdown]
# ## 1. Pictures, and a network that knows nothing
#
# We draw a small world: shapes that overlap, of four classes, 64 x 64 pixels. For every picture
# the program also writes down the **truth**: which pixels belong to which shape. The format is
# that of COCO, the data set with which the field compares. Some pictures are for training, the
# others are kept away from it, for the score at the end.

# %%
folder = Path(tempfile.mkdtemp())
train_count, val_count = learn.full_or_smoke((400, 60), (24, 8))
shapes.write_shapes(folder, train_count, val_count, size_px=64, progress=False)
training = coco.CocoFolder(folder, "train", cache=True)
held_out = coco.CocoFolder(folder, "val", keep_empty=True)
print(
    len(training),
    "pictures to train on,",
    len(held_out),
    "to score; classes:",
    held_out.class_names,
)

# %% [markdown]
# The network is TensorMask's smallest preset, made smaller still. At every **cell** of a grid
# hang square **windows** of two sizes. For every window the network says how sure it is of each
# class, where the object's box lies, and a mask. The grid exists three times, ever coarser with
# ever larger windows: the **levels**.

# %%
config = replace(
    model_config("tiny"), class_names=held_out.class_names, strides_px=(4, 8, 16),
    tower_convs=1, fpn_channels=32, class_channels=32, box_channels=32, mask_channels=32,
)  # fmt: skip
model = build_model(config)
windows = config.geometry.layout([(64, 64)]).windows
print(
    f"{sum(p.numel() for p in model.parameters()):,} weights, {len(windows)} windows a picture"
)


# %%
def found_in(pictures):
    """What the model finds in pictures (3, H, W) uint8: boxes, scores, labels, masks."""
    model.eval()
    with torch.inference_mode():
        found = [model([picture / 255])[0] for picture in pictures]
    model.train()
    return found


picture, truth = held_out[2]
panels = {"truth": truth["masks"], "found: nothing": found_in([picture])[0]["masks"]}
film.film_strip(picture, panels, "What is there, and what an untrained network finds")

# %% [markdown]
# *Left: the true outlines. Right: a network with random weights. Its class logits start so low
# (the **prior**) that it is no more than 1 % sure of anything, so it finds nothing.*
#
# ## 2. Three losses
#
# A **loss** is a number that says how wrong the network is; training makes it small. A window
# is **positive** for an object if it holds it, is of the right size and is centred on it
# (lesson [08](08_which_window_learns_what.ipynb) has the rule). All other windows are
# **negative**.
#
# **Class.** For each window and class the network gives a **logit** x: the probability is
# $\sigma(x) = 1 / (1 + e^{-x})$, so 0 means "half sure". Let y be 1 for the class of a positive
# window's object and -1 for everything else. One picture here has 672 windows and a few dozen
# positive ones at most. So that thousands of easy "no"s do not drown the few "yes"es, the loss
# of a right answer falls off quickly:
#
# $$\begin{gathered}
# \ell = -\frac{\alpha_t}{\gamma}\,\log\sigma(\gamma\,x\,y), \\
# \gamma = 3,\quad \alpha_t = 0.3 \text{ if } y = 1,\ 0.7 \text{ else}
# \end{gathered}$$
#
# **Box.** Four numbers per positive window, compared with the right four: the sum of absolute
# differences.
#
# **Mask.** A window's mask is a grid of **bins**, each with a logit x. A bin of the object
# costs $-1.5\,\log\sigma(x)$, any other $-\log\sigma(-x)$. A mask counts by the mean over its
# bins, so that a large window weighs as much as a small one.
#
# ### Exercise: by hand (10 min, ●●○)
#
# Each is what the formulas above give, averaged or weighted no further:
#
# - `hit`: one class term, x = 0.3 and y = 1. `miss`: one, x = -1.2 and y = -1.
# - `box`: the network says (0.3, -0.1, 0.5, 0), right is (0.1, 0.1, 0.2, 0).
# - `mask`: four bins with logits 2, -1, 0, -3; the first and the third are object.
#
# Write expressions, Python computes: $-\log\sigma(x)$ is `np.log1p(np.exp(-x))`.

# %%
table = learn.numbers("losses_by_hand", hit=..., miss=..., box=..., mask=...)
learn.check("losses_by_hand")

# %% [markdown]
# Stuck? `learn.hint("losses_by_hand", 1)`, then 2, then 3; `learn.solution("losses_by_hand")`
# shows ours. So it is with every exercise. The package's losses on the same numbers:

# %%
one_class = torch.tensor([[[0.3]]]), torch.tensor([[0]])  # one window, one class: it is the one
no_class = torch.tensor([[[-1.2]]]), torch.tensor([[-1]])  # -1: none of the classes
bins = torch.tensor([2.0, -1.0, 0.0, -3.0]).view(1, 2, 2)
where, object_bins = torch.tensor([0]), torch.tensor([True, False, True, False]).view(1, 2, 2)
masks = [losses.WindowMasks(where, bins)], [losses.WindowMasks(where, object_bins)]
package = {
    "hit": losses.class_loss(*one_class, gamma=3, alpha=0.3),
    "miss": losses.class_loss(*no_class, gamma=3, alpha=0.3),
    "box": losses.box_loss(torch.tensor([0.3, -0.1, 0.5, 0]), torch.tensor([0.1, 0.1, 0.2, 0])),
    "mask": losses.mask_loss(*masks, positive_weight=1.5),
}
for name, loss in package.items():
    print(f"{name:5} yours {table[name]:.4f}, the package's {loss.item():.4f}")

# %% [markdown]
# ## 3. Training
#
# A step takes eight pictures and adds up the three losses, masks twice; each is summed over the
# windows and divided by the number of positive ones. PyTorch says which way each weight should
# move, and all move a little. The **learning rate** says how little: it rises at first and then
# falls to zero. On the way we look at one picture that is *not* trained on. The second cell
# trains: one to six minutes.

# %%
steps = learn.full_or_smoke(800, 10)
train_config = replace(recipe("shapes").train, steps=steps, batch_size=8)
world = stream.TrainingSet(training, InputConfig(), train_config.augment, seed=0)
prepared = batches.Batches(world, config, batch_size=8)  # pictures with their targets, by step
run = Run(model.train(), train_config, folder)

# %%
shots, log, began = {"truth": truth["masks"]}, [], time.perf_counter()
for step in range(steps + 1):
    if step in (0, steps // 16, steps // 8, steps // 3, steps):
        best = found_in([picture])[0]
        few = best["masks"][: len(truth["masks"])]  # scores fall
        shots[f"step {step}: {len(few)} masks"] = few
    if step < steps:
        rate = schedule.lr_at(step / steps, train_config)
        run.train_step(prepared[step], rate, began)
        log.append({"step": step + 1, "lr": rate, "seconds": run.seconds} | run.recent[-1])
ious = learn.mask_iou(few[:, None], truth["masks"][None])  # (masks, objects)
for row, k, score in zip(ious, best["labels"], best["scores"], strict=False):
    name, whose = held_out.class_names[k], f"object {row.argmax()}, IoU {row.max():.2f}"
    print(f"at the end {name}, {score:.2f} sure, on {whose}")
film.film_strip(picture, shots, "One picture while the network learns")

# %% [markdown]
# *At five moments the masks with the highest scores, at most as many as there are objects.* At
# first the network is sure of nothing; then come blobs, several on one another, then outlines.
# Three masks are not three objects: the printed lines say which object each lies on. In our run
# the left triangle comes twice, as two classes, and the right one, object 1, is missed.

# %%
viz.loss_curve(log)

# %% [markdown]
# *The losses of each step, on a log scale; below, the learning rate.* The class loss halves
# within 50 steps: to say "nothing here" is soon learnt. *Which* class takes longer: at the end
# its loss is the highest of the three. The mask loss has fallen most.
#
# ## 4. From deltas to boxes
#
# The network does not say a box in pixels. It says four **deltas**: how far the box lies from
# the window, in window sides, and how large it is compared with it, as a logarithm. So they
# mean the same in small windows and in large ones. Each was multiplied by a weight for
# training, which is divided out:
#
# $$\begin{gathered}
# c_x = x + s\,\frac{d_x}{1.5},\quad c_y = y + s\,\frac{d_y}{1.5}, \\
# w = s\,e^{d_w / 0.75},\quad h = s\,e^{d_h / 0.75}
# \end{gathered}$$
#
# (x, y) is the window's centre, s its side, (c_x, c_y) the box's centre, w and h its size; its
# corners are half of them away.
# Numbers: a window of 20 px at x = 40 with $d_x = 0.3$ and $d_w = 0$ holds a box around
# 40 + 20 * 0.2 = 44, as wide as the window: from 34 to 54.
#
# ### Exercise: decode (10 min, ●○○)


# %%
@learn.exercise
def decode(deltas, x, y, side):
    """The box of a window: array (4,) dx, dy, dw, dh -> array (4,) x0, y0, x1, y1.

    x, y: centre of the window. side: of the window. In pixels.
    """
    ...


# %%
learn.check(decode)

# %% [markdown]
# Now the trained network's own numbers, for the picture above and for all windows that are at
# least 0.2 sure of one class:

# %%
model.eval()  # normalise by what training saw, not by this one picture
with torch.inference_mode():
    output = model.network(model.batch([picture / 255]))
    logits, deltas = (per_window(part, 2)[0] for part in (output.logits, output.deltas))
label = int(truth["labels"][0])
scores = logits[:, label].sigmoid().numpy()
least = learn.full_or_smoke(0.2, np.sort(scores)[-9])
chosen = np.flatnonzero(scores >= least)  # (C,) windows
corners = windows.box_px[chosen]
centre, side = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2] - corners[:, 0]
numbers = zip(deltas[chosen].numpy(), *centre.T.tolist(), side.tolist(), strict=True)
mine = np.stack([decode(*four) for four in numbers])
learn.compare(
    mine, boxes.decode(corners, deltas[chosen], config.box_weights), "your boxes and ours"
)

# %% [markdown]
# ## 5. One object, many boxes
#
# Every window near an object finds it. **Non-maximum suppression** (NMS) keeps one: the best
# box stays, whatever overlaps it by more than half goes, then the best of the rest, and so on.
# Overlap is **IoU**: the area in both boxes over the area in either.
#
# ### Exercise: suppress (15 min, ●●●)
#
# Boxes come as COCO writes them: x0, y0, width, height. No two scores are equal, and an IoU of
# exactly one half drops nobody. Careful: neither does a box that was itself dropped.


# %%
@learn.exercise
def suppress(boxes, scores):
    """Which boxes stay: arrays (D, 4) and (D,) -> array (D,) of bool, in the order given."""
    ...


# %%
learn.check(suppress)

# %%
stay = suppress(np.c_[mine[:, :2], mine[:, 2:] - mine[:, :2]], scores[chosen])
panels = {
    "truth": truth["masks"][truth["labels"] == label],
    f"{len(mine)} boxes": mine,
    f"{stay.sum()} stay": mine[stay],
}
words = f'Boxes of the class "{held_out.class_names[label]}", before and after NMS'
sure = sorted(scores[chosen][stay], reverse=True)
print("scores of those that stay:", ", ".join(f"{score:.2f}" for score in sure))
film.film_strip(picture, panels, words)

# %% [markdown]
# *Left: the objects of the class. Middle: the boxes of all windows at least 0.2 sure. Right:
# what your suppression leaves.* Here eight stay for two triangles: NMS drops doubles, not
# errors. All eight are unsure, as their scores say, and AP (part 7) will rank them so. The
# package does this for every class (`inference.keep`). Only then are masks computed, for the
# few windows that stay.
#
# ## 6. Paste
#
# A mask is a grid of bins in its *window*; the box plays no part any more. **Pasting** draws it
# on the picture: each pixel inside the window reads the bins around it, weighted by nearness,
# and is set where the probability is at least one half. One window's bins, and the number of
# pixels that they become:

# %%
best = chosen[stay][scores[chosen][stay].argmax()]
window = windows[torch.tensor([best])]
with torch.inference_mode():
    mask_logits = list(model.network.mask_logits(output, torch.tensor([0]), window))
((_, values),) = mask_logits
print((values[0] > 0).int().numpy())
pasted = inference.paste(mask_logits, window.box_px, 64, 64)
print("bins:", int((values > 0).sum()), " pixels:", int(pasted.sum()), " of 4 x 4 per bin")

# %% [markdown]
# ## 7. What is it worth?
#
# Score all held-out pictures. A mask is a **hit** if its IoU with an object that no better mask
# has taken is at least 0.5. Sort all masks of a class by score and go down the list. After
# each, two fractions:
#
# $$\begin{gathered}
# \text{precision} = \frac{\text{hits so far}}{\text{masks so far}} \\[1ex]
# \text{recall} = \frac{\text{hits so far}}{\text{objects}}
# \end{gathered}$$

# %%
found = found_in([held_out[k][0] for k in range(len(held_out))])
truths = [held_out[k][1] for k in range(len(held_out))]
matches = {
    name: lesson_09.matched(found, truths, k) for k, name in enumerate(held_out.class_names)
}
overlaps, objects = ({name: m[part] for name, m in matches.items()} for part in (0, 1))
film.precision_and_recall(overlaps, objects)

# %% [markdown]
# *A line per class, a mark per mask, from the most confident on the left to the least on the
# right.* Only ellipses are learnt well: their surest masks are right. Of the surest triangles
# two in three are wrong. The right ends say how much is found at all, however unsure: 76 to 94
# % of the objects.
#
# **Average precision** (AP) is the area under such a line, as COCO measures it: at each of the
# 101 recalls 0, 0.01, ..., 1 take the best precision at that recall *or beyond*, 0 if that
# recall is never reached; then the mean. Five masks with IoUs 0.9, 0.3, 0.7, 0.6, 0 and four
# objects: hit, miss, hit, hit, miss. Recall goes 1/4, 1/4, 2/4, 3/4, 3/4, precision 1, 1/2,
# 2/3, 3/4, 3/5. Up to recall 1/4 the best is 1, up to 3/4 it is 3/4, beyond it is 0: AP = (26 *
# 1 + 50 * 0.75) / 101 = 0.629.
#
# ### Exercise: average precision (15 min, ●●○)


# %%
@learn.exercise
def average_precision(overlap, objects):
    """AP at IoU 0.5 of one class.

    overlap: array (D,), by falling score: IoU with the object taken, 0 if none.
    objects: how many there are.
    """
    ...


# %%
learn.check(average_precision)

# %% [markdown]
# The field's numbers come from one program, pycocotools. Yours must give the same:

# %%
yours = np.mean([average_precision(overlaps[n], objects[n]) for n in objects if objects[n]])
detections = [
    line
    for image_id, each in zip(held_out.image_ids, found, strict=True)
    for line in results.to_coco(image_id, each, held_out.category_ids)
]
theirs = coco_scores.score(held_out.ground_truth_path, detections)
print(f"AP at IoU 0.5: yours {yours:.6f}, pycocotools {theirs['AP50']:.6f}")

# %% [markdown]
# COCO's headline number, "AP", is stricter: the mean over IoUs 0.5, 0.55, ..., 0.95. And no
# network of this kind reaches 1: bins are 4 px wide, so even true masks come out blocky. The
# **ceiling** is the score of the true masks seen through the windows.

# %%
highest = ceiling.ceiling(config, held_out, InputConfig(), progress=False)["segm"]
for name in ("AP50", "AP"):
    print(f"{name:4} {theirs[name]:.3f} of at most {highest[name]:.3f}")

# %% [markdown]
# So our network earns four tenths of what its bins allow, after a few minutes on 400 pictures.
# Longer training on more closes much of the gap (`tensormask-edu demo`).
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | the class loss falls, boxes and masks stay | no positive windows: look at the targets |
# | everything is found, with scores of 0.01 | the prior, or gamma in the class loss, is missing |
# | boxes of the right place and the wrong size | exp forgotten, or the weights |
# | two masks on every object | no NMS, or NMS over boxes in another format |
# | a neighbour vanishes | NMS by every better box, not by those that stay |
# | AP near 0 with good pictures | classes shifted by one, or masks in another picture's size |
# | masks shifted by half a bin | pasted by bin corners instead of centres |
#
# ## Recap
#
# - Three losses: class over all windows, box and mask over the positive ones.
# - From numbers to masks: choose by score, decode, suppress, paste from the window.
# - AP rewards sure hits before sure misses; it reads only beside its ceiling.
#
# | paper | code | lesson |
# |---|---|---|
# | FL*, γ, α, section on training | `reference.losses.class_loss`, `losses.class_loss` | 09, part 2 |
# | box loss L1, same section | `reference.losses.box_loss`, `losses.box_loss` | 09, part 2 |
# | mask loss, weight 1.5, same section | `reference.losses.mask_loss`, `losses.mask_loss` | 09, part 2 |
# | box deltas, same section | `boxes.encode`, `boxes.decode` | 09, part 4 |
# | from logits to masks, section on inference | `inference.keep`, `inference.paste` | 09, parts 5 and 6 |
# | mask AP, section on results | `coco_scores.score`, `ceiling.ceiling` | 09, part 7 |
#
# Lesson 10 takes the idea apart: which of the paper's choices earns what?
#
# {{ last }}
