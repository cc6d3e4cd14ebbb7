"""Checkpoints, published weights, pickles read without running them.

What is where:

    checkpoint.py  a folder of weights and configuration: what everything here loads and saves
    official.py    the names of the published models and of torchvision's ResNets, and ours
    pickled.py     the published files, read as data
"""
