# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Start here
#     asks: "does it run here, and what comes out?"
#     question: >-
#       how can one network, without cutting the image into crops, draw the exact outline of
#       every object in it?
#     needs: nothing but this page.
#     minutes: 5
#     seconds: 10
#     objectives: []
#     exercises: []
# ---

# %% [markdown]
# {{ head }}
#
# That is the question of the whole course. The network that answers it here is **TensorMask**
# ([Chen, Girshick, He, Dollár, ICCV 2019](https://arxiv.org/abs/1903.12174)). "The paper"
# always means that one; a table at the end of each lesson leads from its symbols and sections
# to our code. This page shows that everything runs here, one finished result, and the way
# through the lessons.
#
# ## 1. What comes out at the end
#
# Below is a small picture of overlapping shapes. A network that trained about twelve minutes on
# two processor cores drew the dashed outlines. We stored its answer in a small file, so nothing
# has to be trained or downloaded here.

# %%
from tensormask_edu import learn
from tensormask_edu.commands import doctor
from tensormask_edu.viz import lessons

image, truth, found, class_names = learn.stored_sample("data/sample.npz")
lessons.truth_beside_prediction(image, truth, found, class_names)

# %% [markdown]
# Six shapes hide parts of each other, and each pixel belongs to one of them. How close is the
# network? Compare every true mask with the best of the found ones by *IoU*: the pixels both
# have, divided by the pixels either has. 1 is perfect.

# %%
for mask, label in zip(truth["masks"], truth["labels"], strict=True):
    iou = learn.mask_iou(mask, found["masks"]).max()
    print(f"{class_names[label]:10} {mask.sum():5} px   IoU {iou:.2f}")

# %% [markdown]
# The small star has lost its points: it has 78 pixels, and its mask was drawn in blocks of 4 x
# 4 pixels. How many blocks a mask should have is the question of lesson 06. The picture was
# chosen because it is crowded and all six were found; on others the same network misses shapes,
# and lesson 09 counts how often.
#
# ## 2. What runs on your machine
#
# The lessons need the first six lines. A `no` says what to type; "not needed" means what it
# says.

# %%
for ability in doctor.abilities():
    advice = "" if ability.runs else f"({ability.how}; {ability.fix})"
    print("yes" if ability.runs else "no ", ability.name, advice)

# %% [markdown]
# ## 3. The map of the course
#
# Every lesson asks one question, starts with a picture, and runs on a laptop without a GPU. You
# may begin with lesson 04: it explains the (V, U, H, W) tensor from nothing. You then miss why
# masks are hard (01), what was there before (02) and the tensor made by hand (03).
#
# {{ map }}
#
# ## 4. How an exercise works
#
# You write the body of a function and run `learn.check` below it. A stub you leave alone
# becomes the package's own version, so "Run All" always reaches the end. Here is an answer to
# lesson 04's first exercise, with a typical wrong idea in it:


# %%
@learn.exercise
def window_mask(aligned, y, x, pad_value=-6.0):
    return aligned[:, :, y, x]


learn.check(window_mask)

# %% [markdown]
# The check goes from easy to hard, stops at the first failure, says which idea is probably
# wrong, and draws what was expected beside what came. `learn.hint("window_mask", 1)`, then 2
# and 3, help step by step; `learn.solution("window_mask")` prints a solution.
#
# `make lab` opened a copy of this lesson in the folder `work`, which is yours: save what you
# like. `make fresh LESSON=04` brings an untouched copy of a lesson, and keeps yours beside it.
#
# Cells that take long say `learn.full_or_smoke(60, 6)`: 60, or only 6 where the environment
# variable `TENSORMASK_EDU_SMOKE` is set. That is for tests; its numbers mean little.
#
# {{ last }}
