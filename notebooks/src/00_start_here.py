# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here
#
# **The question of the course:** how can one network, without cutting the image into crops, draw the exact
# outline of every object in it?
#
# This page takes half a minute. It shows that everything runs here, one finished result, and the way through
# the lessons. *To run: 5 seconds. Exercises: none. Random numbers: none.*

# %% [markdown]
# ## 1. What comes out at the end
#
# Below is a small picture of overlapping shapes. A network that trained about twelve minutes on two processor
# cores drew the dashed outlines. We stored its answer in a small file, so nothing has to be trained or
# downloaded here.

# %%
from pathlib import Path

import numpy as np

from tensormask_edu import doctor, viz

stored = np.load(Path("data") / "sample.npz")
sorted(stored.keys())


# %% [markdown]
# A mask is one bit per pixel, so eight pixels were packed into a byte. `instances` unpacks them: it gives
# boxes, class labels and masks, for the truth or for what the network found.


# %%
def instances(which):
    fields = {key.removeprefix(f"{which}_"): stored[key] for key in stored if key.startswith(which)}
    return fields | {"masks": np.unpackbits(fields["masks"], axis=-1).astype(bool)}


truth, found = instances("truth"), instances("found")

# %%
viz.truth_and_prediction([stored["image"]], [truth], [found], stored["class_names"], [""])

# %% [markdown]
# Six shapes hide parts of each other, and each pixel was given to one of them. How close is it? Compare every
# true mask with the best of the found ones by *IoU*: the pixels both have, divided by the pixels either has.
# 1 is perfect.

# %%
for mask, label in zip(truth["masks"], truth["labels"], strict=True):
    iou = max((mask & other).sum() / (mask | other).sum() for other in found["masks"])
    print(f"{stored['class_names'][label]:10} {mask.sum():5} px   IoU {iou:.2f}")

# %% [markdown]
# The picture was chosen because it is crowded and came out well. On others the same network misses shapes or
# takes a star for an ellipse: lesson 09 counts how often, and lesson 11 collects failures.

# %% [markdown]
# ## 2. What runs on your machine
#
# The lessons need the first six lines. A `no` says what to type; "not needed" means what it says.

# %%
for ability in doctor.abilities():
    advice = f"  ->  {ability.fix}" if ability.fix else ""
    print(
        f"{'yes' if ability.runs else 'no ':4}{ability.name:17}{'' if ability.runs else ability.how}{advice}"
    )

# %% [markdown]
# ## 3. The map of the course
#
# Every lesson asks one question, starts with a picture, and runs on a laptop without a GPU. You may begin with
# lesson 04: it explains the (V, U, H, W) tensor from nothing.
#
# | | question | state |
# |---|---|---|
# | 01 Overlap world | why is "which pixel is whose" hard? | planned |
# | 02 Four ancestors | what did earlier methods store per place? | planned |
# | 03 A mask is a 4-D tensor | what do V, U, H, W and their units mean? | planned |
# | [04 Two ways to file a mask](04_two_ways_to_file_a_mask.ipynb) | natural or aligned? | **ready** |
# | 05 More mask pixels for free | can few channels give a fine mask? | planned |
# | [06 Swap and bipyramid](06_swap_and_bipyramid.ipynb) | why should big objects get bigger masks? | **ready** |
# | 07 From NumPy to PyTorch | same numbers, gradients, ten times faster? | planned |
# | 08 Which window learns what | when is a window positive? | planned |
# | 09 Train it | does it learn in minutes? | planned |
# | 10 Ablations in miniature | which idea earns what? | planned |
# | 11 Real photos, full model | does it survive reality? | planned |
# | 12 Ship it | what leaves PyTorch? | planned |
#
# **How an exercise works.** You fill in the body of a function and run the `check` below it. The check goes from
# easy to hard, stops at the first failure, says which idea is probably wrong, and draws the expected result
# beside yours. `hint("name", 1)` up to `3` help; `solution("name")` prints the package's own source. A stub you
# leave alone becomes the package's version, so "Run All" always reaches the end.
#
# Words you do not know are in the [glossary](../docs/glossary.md). **Next:**
# [04 Two ways to file a mask](04_two_ways_to_file_a_mask.ipynb).
