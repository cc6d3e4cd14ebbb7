"""The detectors that TensorMask grew from, small and whole: a file each, one evaluator.

In the order of reading:

    fit.py           what a detector here can do, and the loop that trains it
    pyramid.py       windows of one size on a pyramid of scales: patches, grids, drawing
    deepmask.py      a mask and a score for every position (2015)
    sharpmask.py     the mask refined from coarse to fine (2016)
    instance_fcn.py  the mask put together from score maps (2016)
    mask_rcnn.py     boxes first, then a mask in each (2017)
    judge.py         one judge for all of them, and TensorMask beside them
    tables.py        the tables `ancestors` and `roi`, row by row
"""
