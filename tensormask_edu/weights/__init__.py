"""Checkpoints, models that come along, published weights, pickles read without running them.

What is where:

    shipped.py     which models come along
    checkpoint.py  a folder of weights and configuration: what everything here loads and saves
    official.py    the names of the published models and of torchvision's ResNets, and ours
    pickled.py     the published files, read as data

and in `models/shapes/` and `models/cells/`, made by `python benchmarks/ship.py shapes`:

    model.safetensors  the weights in float16; a loaded model is float32
    config.json        model and input, as in every checkpoint
    card.json          what the model is for, how it was made, its scores, its SHA-256
    card.md            the same as a page
    failures.png       six failures on held-out pictures
"""
