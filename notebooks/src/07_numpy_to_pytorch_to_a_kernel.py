# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: From NumPy to PyTorch to a kernel
#     asks: "same numbers, gradients, a hundred times faster?"
#     question: >-
#       how does a definition in slow loops become a fast operator, with gradients, and how do
#       we know that it is still the same operator?
#     needs: "PyTorch; no CUDA and no GPU. Lessons 04 and 06 derive the two operators used here,
#       a sentence says what each does. Seed: 0."
#     minutes: 75
#     seconds: 20
#     objectives:
#     - turn loops over numbers into slices of tensors, for batches too;
#     - test a gradient without trusting it;
#     - "read a CUDA kernel line by line, count its blocks and threads, and see what a barrier
#       is for."
#     exercises: [align2nat_fast, AlignedHead, launch_numbers, no_barrier]
# ---

# %% [markdown]
# {{ head }}

# %%
import ctypes
import time

import torch

from tensormask_edu import learn, ops, reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.ops import cuda, kernel
from tensormask_edu.ops.ptx.estimate import figures
from tensormask_edu.ops.ptx.execute import execute
from tensormask_edu.ops.ptx.text import kernels
from tensormask_edu.viz import threads

generator = torch.manual_seed(0)

# %% [markdown]
# ## 1. Two ways, one result
#
# TensorMask keeps a small mask for every place of the image in one tensor (N, V, U, H, W): N
# images, a grid of H x W **cells**, and at each cell a **window** of V x U **bins**, the pixels
# of that small mask. The operator `align2nat` takes a tensor in which every value is filed
# under the pixel it speaks of (**aligned**) and files it under the window it belongs to
# (**natural**). The package has it as loops in NumPy, which are the definition, and as a fast
# operator:

# %%
x = torch.randn(1, 5, 5, 16, 16)
ways = {
    "NumPy, loops": lambda: reference.align2nat(x.numpy()),
    "PyTorch, one operator": lambda: ops.align2nat(x),
}
learn.compare(*[way() for way in ways.values()], "loops and operator")
for words, way in ways.items():
    start = time.perf_counter()
    way()
    print(f"{words:22} {1000 * (time.perf_counter() - start):8.1f} ms")

# %% [markdown]
# The numbers are equal, the time is not: Python runs one statement per number, 6,400 here. How
# to get from the first line to the second without changing a number?
#
# ## 2. Move a whole map at once
#
# Make it tiny: 3 x 3 bins on 4 x 4 cells. Bins count from the window's middle, so v and u are
# -1, 0 or 1. The definition reads one number at a time:
#
# $$F(v, u, y, x) = \hat F(v, u, y + v, x + u)$$
#
# $\hat F$ is the input, F the result. The values are **logits**: the sigmoid makes
# probabilities of them. Outside the grid lies `pad_value`, -6: "surely not object".
# Now keep v and u: *all* y and x form a **map** of H x W numbers, which the formula moves as a
# whole, by v rows and u columns. Put a border of `pad_value` around it and the result is a
# slice:

# %%
threads.moved_maps()

# %% [markdown]
# *Each number names its pixel: 10 * row + column. The dash-dotted frame becomes the map of the
# result, for u = 0.*
#
# Nine slices in place of 9 * 16 reads. Python's work depends on V and U alone; PyTorch moves
# the cells, of all N images of a batch.
#
# ### Exercise: align2nat by slices (15 min, ●●○)
#
# `torch.nn.functional.pad` adds the border. No loop over y or x. The check also counts the
# operations that PyTorch runs.


# %%
@learn.exercise
def align2nat_fast(aligned, pad_value=-6.0):
    """aligned: tensor (N, V, U, H, W), V and U odd -> tensor of the same shape, natural."""
    # F.pad(x, (left, right, above, below), value=...) adds a border to the last two axes
    ...


# %%
learn.check(align2nat_fast)

# %% [markdown]
# Stuck? `learn.hint("align2nat_fast", 1)`, then 2, then 3; `learn.solution("align2nat_fast")`
# shows ours.
#
# Try sizes that are easy to get wrong:

# %%
for shape in [(1, 1, 1, 4, 4), (2, 3, 5, 4, 6), (3, 5, 3, 1, 7), (2, 7, 7, 3, 3)]:
    x = torch.randn(shape, dtype=torch.float64)
    learn.compare(align2nat_fast(x), reference.align2nat(x.numpy()), f"{shape}")

# %% [markdown]
# ## 3. A head: channels become bins
#
# Where does the tensor come from? A network has **features**, C numbers per cell: (N, C, H, W).
# A convolution with a 1 x 1 kernel looks at one cell only and says V * U numbers about it.
# These are aligned: all about the pixel at hand. Two lines are left to do: make two axes of
# V * U channels, and refile. That is TensorMask's mask **head**, without its bipyramid.
#
# ### Exercise: the head as a module (10 min, ●●○)
#
# The convolution has a bias, as PyTorch gives it by default. The V * U channels come v by v:
# channel v * U + u is bin (v, u), both counted from the window's edge.


# %%
@learn.exercise
class AlignedHead(torch.nn.Module):
    """Features (N, C, H, W) to natural mask logits (N, V, U, H, W); pad -6."""

    def __init__(self, channels, num_v, num_u):
        super().__init__()

    def forward(self, features): ...


# %%
learn.check(AlignedHead)

# %% [markdown]
# A batch is no extra work: every step carries N along. Run two images at once, and one by one:

# %%
head = AlignedHead(8, 5, 5)
features = torch.randn(2, 8, 6, 6)
one_by_one = torch.cat([head(features[:1]), head(features[1:])])
learn.compare(head(features), one_by_one, "a batch of two, and one by one")

# %% [markdown]
# ## 4. Is the gradient right?
#
# Gradients of kernels are written by hand, so we need a test that trusts nobody: nudge one
# input by a small $\varepsilon$ both ways and see how the result moves.
#
# $$\frac{\partial f}{\partial x_i} \approx
# \frac{f(x_i + \varepsilon) - f(x_i - \varepsilon)}{2\varepsilon}$$
#
# By hand for one input entry, with f the sum of squares of the result:

# %%
x = torch.randn(1, 3, 3, 3, 3, dtype=torch.float64, requires_grad=True)
nudge = torch.zeros_like(x)
nudge[0, 1, 1, 1, 1] = 1e-6


def f(x):
    return align2nat_fast(x).square().sum()


by_hand = (f(x + nudge) - f(x - nudge)) / 2e-6
(grad,) = torch.autograd.grad(f(x), x)
print(f"nudged {by_hand.item():.8f}, autograd {grad[0, 1, 1, 1, 1].item():.8f}")

# %% [markdown]
# `torch.autograd.gradcheck` does this for every pair of input and output. It needs float64:
# with float32 the two values of f agree in too many digits to be subtracted.

# %%
print("gradcheck of your slices:", torch.autograd.gradcheck(align2nat_fast, x))
print("gradcheck of ops.align2nat:", torch.autograd.gradcheck(ops.align2nat, x))

# %% [markdown]
# ## 5. A registered operator
#
# The bipyramid needs a second operator, `swap_align2nat`: it makes bins `lam` times finer,
# moves them as above, and keeps every `lam`-th cell. Each output is a weighted sum of at most
# 16 inputs. Chains of slices would be slow and hungry here, so the package **registers** an
# operator of its own with PyTorch: a name and argument types (the schema), a function that
# computes it, one that gives the output's *shape* alone, and one for the gradient.

# %%
op = torch.ops.tensormask_edu.swap_align2nat
print(op.default._schema)
shape_only = op(torch.empty(1, 15, 15, 200, 336, device="meta"), 32, -6.0)
print("a result of", tuple(shape_only.shape), "that was never computed")

# %% [markdown]
# The device `meta` has shapes and no numbers: compilers follow a graph with it.
# What runs for real numbers depends on where they lie; every way must give what the loops give:

# %%
x = torch.randn(1, 3, 3, 8, 10)
loops = reference.swap_align2nat(x.numpy(), 2)
for name in ("formula", "cpu"):
    if reason := ops.missing(name):
        print(f"{name} cannot run here: {reason}")
        continue
    with ops.use(name):
        learn.compare(loops, ops.swap_align2nat(x, 2), f"loops and {name}")

# %% [markdown]
# "formula" is made of PyTorch's operations, "cpu" is our C++, "cuda" our code for GPUs: that
# one we read now.
#
# ## 6. A kernel: one text, run by many threads
#
# A **kernel** is a function that a GPU runs thousands of times at once, each run a **thread**,
# in **blocks** of equal size. All run the same text; a thread knows its number in the block and
# its block's number. Say every thread makes one output:

# %%
threads.blocks_and_threads(shape=(2, 2, 3, 4), threads=13)

# %% [markdown]
# *Above: blocks as rows, threads as columns, in each square the number of the output that the
# thread makes. Below: where these outputs lie in a tensor of 2 x 2 bins on 3 x 4 cells. The
# last block has four threads too many.*
#
# Numbers run along x first, then y, u, v: the order in memory. Neighbouring threads write
# neighbouring places. Now the real one, `plain.cu`, in CUDA: C++ with a few more words. Its
# entry first:

# %%
text = kernel.text_of("plain.cu")
print(kernel.excerpt(text, 'extern "C" __global__ void plain_forward', "output_element(x"))

# %% [markdown]
# - `__global__` marks a kernel. `x` and `out` are addresses in memory, without shapes: sizes
#   come along as numbers.
# - `i` is block number times block size plus thread number: the numbers in the picture.
# - `if (i < count)` is the **guard**. Blocks are started whole; the hatched threads must do
#   nothing.
#
# What is output number i? Divide the sizes off, the fastest axis first:

# %%
print(kernel.excerpt(text, "const int cells_x", "const int u ="))

# %% [markdown]
# ### Exercise: who makes what (10 min, ●○○)
#
# The input is (1, 3, 3, 8, 10) and `lam` is 2, so the output is (1, 6, 6, 4, 5). A block has
# 128 threads. How many blocks are needed, and how many threads stay idle? Which output does
# thread 70 of block 3 make: its number i, and its place (v, u, y, x)? All count
# from 0, v and u too: from the window's edge.

# %%
launch = learn.numbers(
    "launch_numbers", blocks=..., idle=..., i=..., v=..., u=..., y=..., x=...
)
learn.check("launch_numbers")

# %% [markdown]
# The rest sums over the output's neighbours. An output lies between two inputs along each of
# four axes, so $2^4 = 16$ inputs are read; the four bits of `tap` choose the lower or the upper
# one. `s` (`SIZES`) are N, V, U, H, W and `lam`, `extent` four of them; `origin` is where the
# output lies, `visit` adds weight times value.

# %%
print(kernel.excerpt(text, "for (int tap = 0", "visit(inside"))

# %% [markdown]
# `place` is what `np.ravel_multi_index` gives, `weight` the product of four weights of linear
# interpolation, and a tap that is not `inside` counts as `pad_value`.
#
# Run it: with a GPU, for which the compiler NVRTC translates this text, or in an **emulator**:
# a CPU program that starts the blocks one after another and lets their threads take turns.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
runs = kernel.can_run(device)
out = torch.full((1, 6, 6, 4, 5), float("nan"), device=device)
arguments = (x.to(device), out, *x.shape, 2, ctypes.c_int64(out.numel()), -6.0)
if runs:
    blocks = round(launch["blocks"])
    kernel.run(text, "plain_forward", blocks, 128, *arguments)
    learn.compare(loops, out, f"loops and kernel, on {device}")
    out.fill_(float("nan"))
    kernel.run(text, "plain_forward", blocks - 1, 128, *arguments)
    print("one block too few: outputs never written:", int(out.isnan().sum()))
else:
    print("The emulator needs a C++ compiler; the outputs on the web page come from one.")

# %% [markdown]
# ## 7. Threads that share need a barrier
#
# In `plain.cu` no thread needs another, and neighbours read the same inputs again.
# Fast kernels (`gpu/kernels.cu`) let a block read its inputs *once*, into **shared memory**
# that all its threads see. Here is `align2nat` along one axis in that manner: a block per row,
# a thread per cell.

# %%
slide = """
extern "C" __global__ void slide(const float* x, float* out, int width, int v,
                                 float pad_value) {
  __shared__ float row[32];                       // seen by all threads of the block
  const int i = threadIdx.x, cell = blockIdx.x * width + i;
  row[i] = x[cell];                               // each thread brings one number
  __syncthreads();                                // the barrier: wait until all have done so
  const int place = i + v;                        // and then reads another one's
  out[cell] = 0 <= place && place < width ? row[place] : pad_value;
}
"""


def slid(text, x):
    """The rows of x, moved by one cell."""
    out = torch.zeros_like(x)
    if runs:
        kernel.run(text, "slide", len(x), x.shape[1], x, out, x.shape[1], 1, -6.0)
    return out


rows = torch.arange(24.0, device=device).view(4, 6)
right = slid(slide, rows)
print(right)

# %% [markdown]
# Thread i brings number i and reads number i + 1, which thread i + 1 brings. Who promises that
# it is there already? The **barrier**, `__syncthreads()`: no thread goes on before all threads
# of the block have come to it.
#
# ### Exercise: predict, then take the barrier out (5 min, ●●○)
#
# The emulator runs the threads of block 0 in the order 0, 1, 2, ..., those of block 1 in the
# order 5, 4, 3, ..., and so on by turns, each until it ends or meets a barrier. Unwritten
# shared memory holds NaN. Without the barrier, which of the four rows come out wrong:
# `"no row"`, `"some rows"` or `"every row"`?

# %%
learn.predict("no_barrier", ...)
without = slid(slide.replace("__syncthreads();", ""), rows)
if runs:
    print(without)
    learn.check("no_barrier", right, without)

# %% [markdown]
# The other mistake: a barrier that only some threads reach. A GPU hangs or goes on with
# nonsense, the emulator says so.

# %%
if runs and device == "cpu":
    try:
        slid(slide.replace("__syncthreads();", "if (i < 3) __syncthreads();"), rows)
    except RuntimeError as error:
        print(error)

# %% [markdown]
# ## 8. What it costs, counted
#
# Only a GPU says how quick a kernel is; what it asks of one can be counted. NVRTC makes **PTX**
# of it, one instruction per line, which `tensormask_edu.ops.ptx` executes on the CPU. One
# thread per output, then tiles in shared memory:

# %%
aligned, natural = torch.zeros(1, 15, 15, 100, 168), torch.zeros(1, 30, 30, 50, 84)
try:
    code = kernels(torch.float32)
    tiles, *_, elements = cuda.forward_calls(aligned, 2, -6.0, natural)
    for call in (elements, tiles):
        cost = figures(call, execute(code, call, every=9, races=False), every=9)
        print(f"{call.kernel:18}{cost['instructions']:4.0f} instructions per output,", end=" ")
        print(f"{cost['loaded']:5.2f} times the input loaded")
except InputError as error:  # no compiler
    print(error)

# %% [markdown]
# Windows overlap: one thread per output loads each input many times. What tiles still load
# twice is the **halo**, a block's edge that the next block needs too. `tensormask-edu check-ops
# --device ptx` counts every kernel.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | right for one image, wrong for a batch | an axis counted from the front that should be counted from the back |
# | masks moved the wrong way, or by rows for columns | `F.pad` takes the *last* axis first |
# | gradcheck fails, training works "somehow" | float32 in gradcheck, or a hand-written gradient |
# | the last outputs are NaN or old values | too few blocks: round up |
# | a crash only for some sizes | no guard: the last block's idle threads write behind the end |
# | right in one run, wrong in the next | a missing barrier, or several threads adding to one place |
#
# ## Recap
#
# - Keep the loops: faster forms are compared with them.
# - Move maps, not numbers: Python's work must not grow with the image.
# - A gradient is tested by nudging, in float64.
# - A kernel's thread finds its place from block and thread number; a guard stops the idle ones;
#   a barrier makes shared memory safe.
#
# | paper | code | lesson |
# |---|---|---|
# | `align2nat`, section 3 | `reference.align2nat`, `ops.align2nat` | 07, parts 1 to 4 |
# | mask head, section 4 | `AlignedHead` here, `MaskBranch` in the package | 07, part 3 |
# | `swap_align2nat`, section 3 | `reference.swap_align2nat`, `ops.swap_align2nat` | 07, parts 5 and 6 |
# | its kernels, in no section | `plain.cu`, `kernels.cu` | 07, parts 6 to 8 |
#
# **You can now** write an operator twice, prove the two equal, and read a GPU's kernel.
#
# {{ last }}
