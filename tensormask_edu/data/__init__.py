"""Pictures with truth: overlap world, COCO folders, augmentation.

In the order of reading:

    shapes.py     the overlap world: pictures drawn here, with their truth
    layouts.py    where the JSON and the pictures of a data set lie
    outlines.py   one segmentation: may it be drawn, and what comes of it
    instances.py  COCO's JSON: what is refused, repaired, left out
    truth.py      the truth of a picture, and what a crop or another size does to it
    pictures.py   a picture file as pixels
    prepare.py    from pixels to the model's input
    coco.py       any COCO folder as a data set
    augment.py    random changes of a picture and its truth
    stream.py     the order of a training run
"""
