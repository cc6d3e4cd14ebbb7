# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Real photos, and the full model counted
#     asks: "what is lost on real photos?"
#     question: >-
#       how large is the model that the paper trained, what does a small one do with cells under
#       a microscope, and why does it fail where it fails?
#     needs: "PyTorch. Every word is explained here. Seed: 0."
#     minutes: 60
#     seconds: 30
#     objectives:
#     - count the parameters of a detector part by part, and say where they are;
#     - read somebody else's weights by name and shape, and know what that does not prove;
#     - sort errors by kind, and find the cause of a kind by changing one thing at a time.
#     exercises: [head_parameters, our_place, sort_errors, which_failure]
# ---

# %% [markdown]
# {{ head }}

# %%
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from IPython.display import Image

from tensormask_edu import learn, load_checkpoint
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.predict import detect
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.detector.model import build_model
from tensormask_edu.evaluation import coco_scores, lost
from tensormask_edu.learn.lessons import lesson_11
from tensormask_edu.viz import film, reasons
from tensormask_edu.weights import official, shipped

# %% [markdown]
# ## 1. The full model, part by part
#
# TensorMask is a detector that draws a mask in every **window** of a picture. Five parts do it:
#
# - the **body**, a ResNet-50: a picture becomes four maps of features, ever coarser;
# - the **pyramid** (FPN): the maps get 256 channels each, and two coarser ones are added;
# - three **heads** read every map: one says the *class* of each window, one its *box*, one its
#   *mask*.
#
# On PyTorch's `meta` device tensors have shapes but no memory, and can be counted. Beside it
# stands the smallest preset, `tiny`.

# %%
with torch.device("meta"):
    full, tiny = (build_model(preset) for preset in ("r50_fpn_1x", "tiny"))
PARTS = {
    "body": ("backbone.body",),
    "pyramid": ("backbone.fpn",),
    "class": ("class_tower", "class_predictor"),
    "box": ("box_tower", "box_predictor"),
    "mask": ("mask_branch",),
}


def counted(model, parts):
    """Parameters of the parts of a model's network."""
    modules = [model.network.get_submodule(part) for part in parts]
    return sum(p.numel() for module in modules for p in module.parameters())


shares = {}
for name, model in (("full", full), ("tiny", tiny)):
    counts = np.array([counted(model, parts) for parts in PARTS.values()])
    shares[f"{name}, {counts.sum():,}"] = 100 * counts / counts.sum()
reasons.bars_side_by_side([*PARTS], shares, "Where the parameters are", ("part", "percent"))

# %% [markdown]
# *Two thirds of the full model are the body, which knows nothing of masks.*
#
# A **convolution** whose kernel has k x k places, from C channels to C', has a weight for every
# place and pair of channels and, here, a **bias** per output channel:
#
# $$C'\,(k^2\,C + 1)$$
#
# From 2 to 3 channels by 3 x 3: 3 * (9 * 2 + 1) = 57.
#
# ### Exercise: a head (10 min, ●○○)
#
# A head is a **tower** and a predictor. The tower is `convs` convolutions of 3 x 3, each
# followed by a ReLU, which has no parameters; the first reads `before` channels, each gives
# `channels`. Then the predictor, a convolution of `kernel` x `kernel`, gives `outputs`
# channels. Every convolution has biases; nothing else is counted. `convs` may be 0: then the
# predictor reads the `before` channels. Return a whole number.


# %%
@learn.exercise
def head_parameters(before, channels, convs, outputs, kernel):
    """Parameters of a tower of `convs` 3x3 convolutions and a predictor."""
    ...


# %%
learn.check(head_parameters)

# %% [markdown]
# Stuck? `learn.hint("head_parameters", 1)`, then 2, 3; `learn.solution("head_parameters")`.
#
# Two sizes of windows hang at each place, so the class head of 80 classes gives 160 channels
# and the box head 8. The mask head has a 1 x 1 predictor per size, of 11 x 11 and 15 x 15
# **bins** (mask pixels), and one more 3 x 3 convolution, `fuse`, which lifts coarse maps to the
# finest grid. Your function on all of it:

# %%
mine = {
    "class": head_parameters(256, 256, 4, 160, 3),
    "box": head_parameters(256, 128, 4, 8, 3),
    "mask": head_parameters(256, 128, 4, 11 * 11, 1)
    + head_parameters(128, 0, 0, 15 * 15, 1)
    + head_parameters(128, 0, 0, 128, 3),
}
for part, number in mine.items():
    print(f"{part:5} yours {number:9,}, PyTorch {counted(full, PARTS[part]):9,}")

# %% [markdown]
# ## 2. Somebody else's weights
#
# The authors published [two trained models](../docs/weights.md), under the names of detectron2.
# Their files were never opened for this lesson. What can be shown without them is what goes
# wrong first: **names and shapes**. (Norms also hold means and variances, no parameters.)

# %%
theirs = official.official_state(full)  # their name -> a tensor without memory
pairs = list(zip(full.state_dict(), theirs.items(), strict=True))
for ours, (name, tensor) in pairs[5:300:45]:
    print(f"{ours}\n    {name}  {tuple(tensor.shape)}")
values = sum(tensor.numel() for tensor in theirs.values())
print(f"{len(theirs)} tensors, {values:,} values")

# %% [markdown]
# ### Exercise: find its place (15 min, ●●○)
#
# The body has four **stages** of several **blocks** of three convolutions; a stage's first
# block also has a `shortcut`, a convolution around the others. Behind each convolution, a
# shortcut's too, comes a **norm** of four tensors: weight, bias, running_mean, running_var.
# Official names look like these:
#
# - `backbone.bottom_up.res3.1.conv2.weight`: stage res3, block 1, the weight of conv2;
# - `backbone.bottom_up.res3.1.conv2.norm.weight`: the weight of the norm behind it;
# - `backbone.bottom_up.res2.0.shortcut.norm.bias`: of the norm behind a shortcut.
#
# Return a list of four whole numbers: the stage, counted from 0 (res2 is our stage 0, res5 our
# stage 3); the block, counted from 0 as it is there; 1, 2 or 3 for conv1, conv2, conv3 and 0
# for a shortcut; 1 if the tensor is of a norm, else 0. The three names give [1, 1, 2, 0],
# [1, 1, 2, 1] and [0, 0, 0, 1].


# %%
@learn.exercise
def our_place(name):
    """[stage, block, conv, is it of a norm] of an official name, a str."""
    ...


# %%
learn.check(our_place)

# %% [markdown]
# Your four numbers make our name. On every tensor of the stages:

# %%
ours_by_theirs = {name: ours for ours, (name, _) in pairs}
right, asked = 0, [name for name in theirs if ".bottom_up.res" in name]
for name in asked:
    stage, block, conv, is_norm = our_place(name)
    layer = f"{('conv', 'bn')[is_norm]}{conv}" if conv else f"downsample.{is_norm}"
    built = f"stages.{stage}.{block}.{layer}.{name.split('.')[-1]}"
    right += ours_by_theirs[name].endswith(built)
print(f"{right} of {len(asked)} names are right")

# %% [markdown]
# Shapes are the second lock. A file with one tensor too few, and one with another shape:

# %%
one = "head.mask_pred_15.weight"
for state in (
    {name: tensor for name, tensor in theirs.items() if name != one},
    theirs | {one: torch.empty(121, 128, 1, 1, device="meta")},
):
    try:
        official.load_official(full, state)
    except InputError as error:
        print(error)

# %% [markdown]
# What this does *not* prove: that the numbers mean the same. A torchvision ResNet halves its
# grid in another convolution: every shape fits, and the outputs are wrong.
#
# ## 3. Nuclei, and a model that comes along
#
# `tensormask-edu models` lists two small trained models. `cells` finds nuclei, the cores of
# cells, in microscope photos. Its card has scores of 60 photos that it was not trained on:
#
# - **IoU**: the pixels that a mask and an object both have over those that either has.
# - **AP50**: the area under a curve of precision (how many masks are right) against recall (how
#   many objects are found), if an IoU of 0.5 makes a mask right; 1 is perfect. **AP**: the mean
#   for 0.5, 0.55, ..., 0.95, so edges count too.
# - `ceiling_AP`: what true masks score, seen through the bins of windows that learn them.
#
# Score it yourself, on eight crops of those photos (2018 Data Science Bowl, BBBC038, CC0) or on
# yours, if the environment variable `TENSORMASK_EDU_PHOTOS` names a COCO folder. Where there
# are neither we *draw* nuclei: bright ellipses, out of focus, in noise.

# %%
card = shipped.read_card("cells")
model, sizes = load_checkpoint("cells")
print(f"{card['weights']['parameters']:,} parameters, {card['weights']['bytes'] / 1e6:.1f} MB")
print({name: round(card["scores"][name], 3) for name in ("AP", "AP50", "AP75", "ceiling_AP")})
folder = Path(os.environ.get("TENSORMASK_EDU_PHOTOS", "data/nuclei"))
what = "photos"
if not folder.is_dir():
    folder, what = Path(tempfile.mkdtemp()), "drawn pictures"
    lesson_11.write_photos(folder, lesson_11.drawn(count=learn.full_or_smoke(8, 3)))
dataset = CocoFolder(folder, "val", keep_empty=True)
print(len(dataset), what)
shown = []
for k in (k % len(dataset) for k in (1, 3, 5)):
    image, truth = dataset[k]
    found = detect(model, image.numpy(), sizes, score=0.5)
    shown.append((f"picture {k + 1}", image, truth["masks"], found["masks"]))
film.truth_and_found(shown, f"Three {what}: what the model finds")

# %% [markdown]
# *Dashed: masks with a **score**, how sure the model is, of at least 0.5.*
# The AP here, of all masks however unsure:

# %%
detections, _ = coco_scores.evaluate_model(model, dataset, sizes, progress=False)
ground_truth = coco_scores.load_ground_truth(dataset)
scores = coco_scores.score(ground_truth, detections)
print({name: round(scores[name], 3) for name in ("AP", "AP50", "AP75")}, "on", what)

# %% [markdown]
# From which score on should one believe a mask? Move the slider:

# %%
image, truth = dataset.image(2)[:, :64, :64].numpy(), dataset.truth(2, (0, 0, 64, 64))
lesson_11.by_threshold(image, detect(model, image, sizes), truth["masks"].numpy())

# %% [markdown]
# *A corner of picture 3 as a negative, squares of 2 x 2 px. Filled: rims of masks that hold a
# nucleus of their own; dashed: of masks that do not.* AP adds up all positions; a user chooses
# one.
#
# ## 4. Which error is it?
#
# An AP does not say what to mend, so sort the errors. A detection is **fine** if its IoU with
# its object is at least 0.75, **coarse** from 0.5 on, **doubled** if its object has a better
# one already, **false** if it has none, **merged** if it swallowed several. An object without
# any is **missed**.
#
# ### Exercise: predict (5 min, ●○○)
#
# The card counts failures on its 60 photos, at scores from 0.5 on. Which kind is most frequent:
# `"missed"`, `"merged"`, `"doubled"`, `"coarse"` or `"false"`?

# %%
learn.predict("which_failure", ...)

# %% [markdown]
# ### Exercise: sort them (15 min, ●●●)
#
# `ious` is a float array (D, G): a row per detection, by falling score, a column per object.
# From the first row to the last:
#
# 1. Of the objects still *free*, take the one with the largest IoU (of equals the first). Is
#    that IoU at least 0.5? Then the object is taken, no longer free, and the detection is 0
#    (fine) from 0.75 on, else 1 (coarse).
# 2. If not: has it an IoU of at least 0.5 with *any* object, taken or not? Then it is 2
#    (doubled).
# 3. Else it is 3 (false).
#
# Return an array (D,) of whole numbers. D or G may be 0; without objects all are false.


# %%
@learn.exercise
def sort_errors(ious):
    """Kinds of detections, (D, G) -> (D,): 0 fine, 1 coarse, 2 doubled, 3 false."""
    ...


# %%
learn.check(sort_errors)

# %% [markdown]
# On all pictures, masks with scores from 0.5 on:

# %%
kinds, objects = [], 0
for k in range(len(dataset)):
    image, truth = dataset[k]
    found = detect(model, image.numpy(), sizes, score=0.5)
    kinds += sort_errors(lesson_11.ious_of(found["masks"], truth["masks"].numpy())).tolist()
    objects += len(truth["masks"])
for number, kind in enumerate(("fine", "coarse", "doubled", "false")):
    print(f"{kind:8} {kinds.count(number):4}")
print(f"missed   {objects - kinds.count(0) - kinds.count(1):4} of {objects} nuclei")

# %% [markdown]
# The package sorts further: a **merged** mask was right for one object in your list, or false;
# **poor** is an IoU of 0.1 to 0.5. So our 63 fine, 18 coarse and 4 false become 62, 16 and 0.
# And it asks what a kind *costs*: the AP if it alone were mended. (Of the sure masks alone, so
# the AP is lower than above. APs, APm, APl: of small nuclei, under 32 x 32 px, medium and large
# ones.) Then comes your prediction; the card calls coarse "coarse outline", false "invented".

# %%
sure = [row for row in detections if row["score"] >= 0.5]
print(lost.table(lost.lost(ground_truth, sure)))

# %%
learn.check("which_failure", card["failures"]["counts"])
print(card["failures"]["counts"], "of", card["failures"]["objects"], "nuclei")

# %% [markdown]
# ## 5. Why? Change one thing at a time
#
# The largest of each kind in our pictures:

# %%
images = {dataset.image_ids[k]: dataset.image(k).numpy() for k in range(len(dataset))}
cut = lesson_11.failures(ground_truth, sure, images)
film.truth_and_found(cut, f"Failures in {what}, the largest of each kind")

# %% [markdown]
# *The failure is in the middle, or where the photo ends; none is doubled or false here.* A
# gallery invites stories. Drawn nuclei can test them: nothing else changes. First the gap:

# %%
shown = []
for length, gap in ((8, -2), (8, 0), (8, 2), (14, -2), (14, 0), (14, 2)):
    rows = [(32, 32 + side * (length + gap) / 2, length, length) for side in (-1, 1)]
    masks = lesson_11.nuclei((64, 64), rows)
    image = lesson_11.photo(masks, light=0.8)
    found = detect(model, image, sizes, score=0.5)["masks"]
    words = f"{length} px long,\n{gap} px apart: {len(found)} found"
    middle = np.s_[..., 14:50, 14:50]
    shown.append((words, image[middle], masks[middle], found[middle]))
film.truth_and_found(shown, "Two nuclei, closer and further apart")

# %% [markdown]
# *-2 px apart: they overlap.* The model reads photos enlarged twice, in bins of 4 px: a bin is
# 2 px of the photo. Between two small nuclei the dent is less than a bin, and they become one.
#
# Now length, and light beside a bright neighbour: nine nuclei of one length in a picture, one
# of them always bright, the other eight as bright, or dim, a seventh of that.

# %%
lengths, share = learn.full_or_smoke((4, 8, 16, 32, 64, 96), (4, 16)), {}
for name, light in (("bright", 1.0), ("dim", 1 / 7)):
    share[name] = np.zeros(len(lengths))
    for k, length in enumerate(lengths):
        step = length + 12
        rows = [((i // 3 + 0.5) * step, (i % 3 + 0.5) * step, length, length) for i in range(9)]
        masks = lesson_11.nuclei((3 * step, 3 * step), rows)
        image = lesson_11.photo(masks, light=[1.0] + 8 * [light])
        found = detect(model, image, sizes, score=0.5)["masks"]
        share[name][k] = 100 * (lesson_11.ious_of(found, masks[1:]) >= 0.5).any(0).mean()
axes = ("length of a nucleus (px)", "percent found")
reasons.bars_side_by_side(lengths, share, "Found, by length and light", axes)

# %% [markdown]
# Three causes:
#
# - **Small**: 4 px are two bins.
# - **Dim**: contrast is stretched once per picture, so one bright neighbour keeps the others in
#   the dark; small ones are lost first.
# - **Large**: the largest window is 112 px of the photo, so one of 96 px has a window. Probably
#   it was never taught: nine in ten nuclei that the model learnt from were 6 to 46 px wide.
#
# ## 6. The same on real photos
#
# Six failures from the 60 photos:

# %%
for number, failure in enumerate(card["failures"]["shown"], start=1):
    print(f"{number} {failure['kind']}: {failure['words']}")
packed = io.BytesIO()
picture = PIL.Image.open(shipped.ROOM / "cells" / "failures.png").convert("RGB")
few = picture.quantize(48, PIL.Image.Quantize.FASTOCTREE)  # colours, for half the bytes
few.save(packed, "png", optimize=True)
Image(packed.getvalue(), alt="Six parts of photos: true outlines above, found ones below.")

# %% [markdown]
# *Above the truth, below what was found.* Ask each one *why*, with part 5 in mind:
#
# - 1 and 2 are large, and stained where most photos are bright on black.
# - 3 is three nuclei of some 7 px that touch: bins.
# - 4 was found as two, in boxes that hardly overlap; the truth has one. Who is right?
# - 5 and 6 are edges that fade: the truth, too, was drawn by somebody.
#
# ## 7. The full model needs a GPU
#
# Random weights draw no masks, but take their time. A photo of 800 x 1344 px:

# %%
if torch.cuda.is_available():
    big = build_model("r50_fpn_1x").cuda().eval()
    photo = torch.rand(3, 800, 1344, device="cuda")
    with torch.inference_mode():
        for _ in range(3):  # the first ones also choose kernels
            torch.cuda.synchronize()
            began = time.perf_counter()
            big([photo])
            torch.cuda.synchronize()
    print(f"{1000 * (time.perf_counter() - began):.0f} ms on {torch.cuda.get_device_name()}")
else:
    print("skipped: PyTorch sees no CUDA device. No GPU figure is stored with this lesson.")

# %% [markdown]
# With a file from the page linked in part 2 it segments your photos:
#
# ```sh
# tensormask-edu convert model_final_8f325c.pkl --preset r50_fpn_1x --output outputs/r50_1x
# tensormask-edu predict outputs/r50_1x photo.jpg --output outputs/seen
# ```
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | names and shapes fit, results are nonsense | stride in another convolution, or BGR for RGB |
# | dim objects missed | contrast is stretched for one bright spot: cut the picture |
# | neighbours in one mask | the gap is less than a bin: enlarge the picture |
# | many missed, few false | too high a score threshold |
#
# ## Recap
#
# - Two thirds of the full model are a body without masks; the mask head has 3 %.
# - Names and shapes are the first test of foreign weights, not the last.
# - On 60 real photos a small model misses a quarter of 1,791 nuclei and reaches seven tenths of
#   the AP that its bins allow. Small, dim and very large nuclei go first.
# - Sort errors before you mend them; then change one thing at a time.
#
# | paper | code | lesson |
# |---|---|---|
# | backbone and heads, section on architecture | `detector.model.build_model` | 11, part 1 |
# | published weights, in no section | `weights.official.load_official` | 11, part 2 |
# | AP, AP50, AP75, section on results | `evaluation.coco_scores.score` | 11, part 3 |
# | errors by kind, in no section | `evaluation.lost.lost` | 11, parts 4 and 5 |
#
# {{ last }}
