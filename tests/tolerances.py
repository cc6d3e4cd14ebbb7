"""How close is equal. Every limit has a name and a reason; tests use the name.

"Spread" is what the official implementation differs from itself, run with other convolution
kernels and thread counts: activations 1.1e-5, losses 1.2e-7, gradient norms 3.5e-5, boxes
5e-4 px, scores 3e-7.
"""

import torch

# An operator against the float64 reference fed with the same rounded inputs, relative to
# max(|reference|, 1% of the largest input): a few roundings of the dtype (see
# `check_ops.scaled_error`).
OP_REL = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
# Two float64 forms of one formula on values of size 6 to 10: some roundings, absolute.
OP_F64 = 1e-12
# An operator in float32 against the golden file, absolute: values reach 6, where a rounding
# is 5e-7.
OP_F32 = 1e-5
# Sums over a whole golden table, printed with six decimals; at lam = 3 the official
# kernel's float32 weights show.
GOLDEN_SUM = 2e-3

# Network outputs in float32 against the official ones, absolute: ten times the spread.
ACTIVATION = 1e-4
# Losses, relative: eighty times the spread, and a few float32 roundings of a mean over all
# windows.
LOSS_REL = 1e-5
# Gradient norms, relative: fifteen times the spread.
GRAD_REL = 5e-4
# Boxes in pixels: twenty times the spread.
BOX_PX = 1e-2
# Scores, absolute: thirty times the spread.
SCORE = 1e-5
# Masks pasted at image size: the official ones agree with themselves to 0.99998.
MASK_IOU = 0.999

# Parameters after five steps of two processes against one, absolute: 7e-9 was seen with the
# global normaliser and 4e-5 with the one per process, at a twentieth of the learning rate.
PROCESSES = 1e-5
# Detections under autocast to 8 or 11 bits of mantissa against float32, through twenty layers.
HALF_SCORE = 0.05
HALF_IOU = 0.9

# Detections of float16 weights against the float32 ones they were rounded from (to 5e-4 of
# each), through twenty layers: 3e-3 was seen of the scores, 0.93 of the masks' IoU.
PACKED_SCORE = 0.02
PACKED_IOU = 0.9

# A picture in [0, 1] resized by Pillow against torchvision's antialiased resize in float32,
# absolute. One method, but torch places the weights in float32: 6e-5 was seen at COCO's sizes,
# a sixtieth of a step of 8 bits, and 6e-8 where torch computes in float64.
RESIZED = 1e-4
# The same at twice the size, where weights are quarters, or in float64: roundings of values.
RESIZED_EXACTLY = 1e-6
