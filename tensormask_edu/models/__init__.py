"""Trained models that come along, a folder each.

What is where, in `shapes/` and `cells/`:

    model.safetensors  the weights in float16; a loaded model is float32
    config.json        model and input, as in every checkpoint
    card.json          what the model is for, how it was made, its scores, its SHA-256
    card.md            the same as a page
    failures.png       six failures on held-out pictures

`python benchmarks/ship.py shapes` and `... cells` make them.
"""
