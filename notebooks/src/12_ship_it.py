# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   lesson:
#     title: Ship it
#     asks: "what leaves PyTorch?"
#     question: >-
#       a trained model is a Python program. What is left of it in a file that other programs
#       run, and how do we know that they still compute the same?
#     needs: >-
#       PyTorch. Lessons 04 and 06 derive the operator used here. The extra `export`, which
#       `make lab` brings along. Seed: 0.
#     minutes: 60
#     seconds: 60
#     objectives:
#     - say what an ONNX file holds, and what becomes of an operator that ONNX does not know;
#     - "choose between a plugin and a function body;"
#     - say how far apart two runs may be and still be equal;
#     - find the first layer on which two runs part.
#     exercises: [flat_places, spacings, half_precision, first_diverging]
# ---

# %% [markdown]
# {{ head }}

# %%
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from tensormask_export.engine.build import build_engine
from tensormask_export.onnx_file import capture, precision, read, write
from tensormask_export.onnx_file.graph import DetectorGraph
from tensormask_export.runtimes import find, parsed
from tensormask_export.shapes import Profile
from tensormask_export.verify import compare, layers, report

from tensormask_edu import learn, ops, reference, viz
from tensormask_edu.base.errors import InputError
from tensormask_edu.data import shapes
from tensormask_edu.learn.lessons import lesson_12
from tensormask_edu.weights.checkpoint import load_checkpoint

generator = torch.manual_seed(0)
onnxruntime.set_default_logger_severity(3)  # errors only

# %% [markdown]
# ## 1. One operator leaves
#
# A phone or a robot has no PyTorch. It has a **runtime**: a library that reads a file of
# operators and computes them. A file format that many runtimes read is **ONNX**. It has
# standard operators, such as `Conv`, `Add` and `Gather`, and does not know ours. What goes
# between is done by this project's second package, `tensormask_export`: `onnx_file` writes and
# reads files, `engine` and `runtimes` build and run, `verify` compares.
#
# `swap_align2nat` takes mask values (N, V, U, H, W), V x U **bins** of a small mask at every
# **cell** of a grid, and makes bins `lam` times finer and cells `lam` times coarser. Export it
# first. PyTorch runs the module once and writes down each operator that it calls;
# `translations.py` says what ours is called in the file:

# %%
swap = lesson_12.SwapByTwo()  # a module that calls the operator, lam = 2, and no more
x = torch.randn(1, 3, 3, 8, 10)
file = capture.traced(swap, (x,), ["x"], ["out"])
print(onnx.printer.to_text(file.graph))

# %% [markdown]
# The file is a list of **nodes**, here one: `SwapAlign2Nat`, in a domain of our own. Let ONNX
# Runtime open it:

# %%
try:
    onnxruntime.InferenceSession(file.SerializeToString())
except Exception as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# A name is not a program. So the file brings along a **function body**: the same operator made
# of standard ones. Ours multiplies by a small matrix of interpolation weights along each of
# four axes; `Einsum` is ONNX's word for such products. (`expose` makes tensors inside a file
# outputs, to see their shapes.)

# %%
write.add_bodies(file)
flat = inline_local_functions(file)  # the body in the node's place
steps = [node for node in flat.graph.node if node.op_type == "Einsum"]
opened = read.expose(flat, [step.output[0] for step in steps])
session = onnxruntime.InferenceSession(opened.SerializeToString())
_, *made = session.run(None, {"x": x.numpy()})
equations = [step.attribute[0].s.decode() for step in steps]
body = [("x", tuple(x.shape))]
body += [(words, each.shape) for words, each in zip(equations, made, strict=True)]
lesson_12.node_and_body(body)

# %% [markdown]
# *Left: a library of ours computes the node at one go. Right: four products. Letters: v u y x
# index the input, p q j i the output.*
#
# ## 2. What each program computes
#
# A **plugin** is our own kernel, in a library that NVIDIA's runtime TensorRT loads. Our node
# says `plugin_namespace`: if the plugin is there TensorRT takes it, else the body. Every way
# must give what the loops give:

# %%
loops = reference.swap_align2nat(x.numpy(), 2)
ways = {"PyTorch": ops.swap_align2nat(x, 2).numpy()}
session = onnxruntime.InferenceSession(file.SerializeToString())
ways["ONNX Runtime, body"] = session.run(None, {"x": x.numpy()})[0]
ways["onnx.reference, body"] = ReferenceEvaluator(file).run(None, {"x": x.numpy()})[0]
try:  # what TensorRT's parser made of the file, computed layer by layer on the CPU
    network = parsed.ParsedNetwork(file).compute({"x": x.numpy()})
    ways["as TensorRT parsed it, body"] = network["out"]
except InputError as error:
    print("left out:", error)
for name, out in ways.items():
    print(f"{name:28} at most {np.abs(out - loops).max():.1e} from the loops")

# %% [markdown]
# TensorRT computes on a GPU only. Without one we can still ask what its parser understood: the
# last line.
#
# | | function body | plugin |
# |---|---|---|
# | runs in | every runtime, [a browser](../docs/explorer.md#window) too | TensorRT with our library |
# | to ship | nothing | a library per system and version |
# | in memory | tensors between, up to `lam` times the input | none |
#
# So begin with the body. Take the plugin where this operator costs too much.
#
# ## 3. Indices for a file
#
# A detector keeps a few windows of thousands. For chosen windows there is a second operator
# whose body has no products, just reads. How does one read V x U scattered values with one
# `Gather`? Put a border of pad values around each map. In memory the tensor is one long row:
# say for every bin *which place* of it is read. Move a window:

# %%
lesson_12.places_in_memory()

# %% [markdown]
# *Each of nine bins (v, u) has a map of 3 x 3 cells, with its border (hatched) 5 x 5. Left: a
# wall, a block per cell. Right: as they lie in memory, a line per map.*
#
# Bin (v, u) of the window at (y, x) is filed under the pixel it speaks of: with the border that
# is row y + v and column x + u of its map, v and u counted from 0. Let s be how many places
# further the next entry along an axis lies. Then
#
# $$\mathrm{place}(v, u) = n\,s_n + v\,s_v + u\,s_u + (y + v)\,s_y + (x + u)$$
#
# ### Exercise: the places (15 min, ●●○)
#
# `padded` has its border already: (N, V, U, H + V - 1, W + U - 1). The window is at cell (y, x)
# of image n, with 0 <= y < H and 0 <= x < W. Count places in the order of the axes, the last
# one fastest, from 0, as in `padded.ravel()`.


# %%
@learn.exercise
def flat_places(padded, n, y, x):
    """padded: array (N, V, U, H + V - 1, W + U - 1) -> whole numbers (V, U)."""
    ...


# %%
learn.check(flat_places)

# %% [markdown]
# Stuck? `learn.hint("flat_places", 1)`, then 2, 3; `learn.solution("flat_places")`. Your places
# in a file of one standard node, beside the package's operator:

# %%
text = """<ir_version: 10, opset_import: ["": 20]>
windows (float[P] flat, int64[K, V, U] places) => (float[K, V, U] out) {
    out = Gather (flat, places)
}"""
aligned = torch.randn(2, 3, 5, 6, 7)
padded = np.pad(aligned, ((0, 0),) * 3 + ((1, 1), (2, 2)), constant_values=-6)
index = np.array([[0, 0, 0], [1, 5, 6], [1, 2, 3]])  # rows: n, y, x
places = np.stack([flat_places(padded, *window) for window in index])
session = onnxruntime.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
(out,) = session.run(None, {"flat": padded.ravel(), "places": places})
expected = ops.swap_align2nat_windows(aligned, 1, torch.from_numpy(index))
learn.compare(out, expected, "your places in ONNX Runtime, and the operator")

# %% [markdown]
# The package's body computes such places inside the graph, so its file takes any size.
#
# ## 4. The detector leaves
#
# Now everything: normalisation, network, suppression of doubles (NMS), masks. Sizes in a graph
# must not depend on what is seen: there are 100 places for detections, and `count` says how
# many are filled.

# %%
scratch = tempfile.TemporaryDirectory()  # gone when the notebook is closed
folder = Path(scratch.name)
checkpoint = learn.full_or_smoke("shapes", lesson_12.small_checkpoint(folder))
short = learn.full_or_smoke({}, {"nms_iterations": 4})
model, input_config = load_checkpoint(checkpoint)
path = folder / "model.onnx"
print(write.export_onnx(model, path, input_config=input_config, **short).summary)
detector = read.read_onnx(path)
for value in [*detector.graph.input, *detector.graph.output]:
    shape = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
    print(f"{value.name:14} {shape}")

# %% [markdown]
# Words are sizes that stay free. `masks` lie on a *canvas*, bins of 4 px over the whole
# picture, 8 in 32 px, and one more on every side: + 2. Two kinds of "our" nodes carry standard
# names: `InstanceNormalization` gets a body of ours, because ONNX Runtime's own puts logits off
# by nearly 1e-4; `Identity` cuts a list, which TensorRT leaves whole.
#
# Does the file compute what PyTorch computes? `verify` asks every runtime that is here, about a
# picture of the overlap world and two samples in the file with PyTorch's answers:

# %%
shapes.write_shapes(folder / "world", 1, 1, progress=False)
picture = folder / "world" / "images" / "val_00000.png"
options = {"sizes": (), "images": [picture], "runtimes": ["onnxruntime"]}
print(report.verify(path, checkpoint, **options).table())

# %% [markdown]
# Above, the **logits** (how sure of each class) and **deltas** (where the box lies) of every
# level. Below, the detections, matched.
#
# ## 5. How far is equal?
#
# Not bit for bit: another order of adding rounds differently. How far apart is still equal, and
# why? Begin with the gap between a number and the next larger one:

# %%
lesson_12.staircase({"a logit": 6, "a pixel": 2500})

# %% [markdown]
# *Each step begins at a power of two.* From $2^e$ to $2^{e+1}$ the numbers of a type with p
# bits of precision lie $2^{\,e - p + 1}$ apart; p is 24 for float32 and 11 for float16. And a
# logit that is off by $\varepsilon$ moves its probability, the sigmoid, by at most $\varepsilon
# / 4$: it is nowhere steeper.
#
# ### Exercise: the table of spacings (10 min, ●●○)
#
# The gap from 6, a large logit, to the next larger number in float32 and in float16; the same
# from 2500, a coordinate in a large photo (px); and by how much a logit off by 1e-4 moves a
# probability at most. Write expressions such as `2.0 ** -3`.

# %%
table = learn.numbers(
    "spacings", logit_32=..., logit_16=..., pixel_32=..., pixel_16=..., probability=...
)
learn.check("spacings")

# %% [markdown]
# What `verify` allows, and why:

# %%
for kind, gap in (("float32", table["logit_32"]), ("float16", table["logit_16"])):
    limit = compare.LIMITS[kind].raw
    print(f"{kind}: {limit.value:g}, or {limit.value / gap:.0f} gaps at 6.\n    {limit.reason}")

# %% [markdown]
# `--precision float16` halves the file. But at 2500 px float16 knows every second pixel: so
# boxes are computed in float32, and so are sums over whole maps.
#
# ### Exercise: predict (5 min, ●●○)
#
# One picture, in float32 and in float16. Of the class logits, the scores and the boxes (in
# pixels), which are furthest apart in absolute numbers: `"logits"`, `"scores"` or `"boxes"`?

# %%
learn.predict("half_precision", ...)

# %%
image, _ = learn.picture_with_truth(number=0, split="val")
images = image[None].numpy() / np.float32(255)
graph = DetectorGraph(model).eval()
ours = write.computed(graph, images)
half = write.computed(DetectorGraph(precision.in_precision(model, "float16")).eval(), images)
fields = ("boxes", "scores", "labels")
a, b = ({f: out[f][0, : out["count"][0]] for f in fields} for out in (ours, half))
mine, theirs = np.array(compare.match_pairs(a, b), int).reshape(-1, 2).T
logits = [name for name in ours if name.startswith("logits")]
measured = [max(float(np.abs(ours[name] - half[name]).max()) for name in logits)]
for name in ("scores", "boxes"):
    measured.append(float(np.abs(a[name][mine] - b[name][theirs]).max(initial=0)))
print("logits {:.1e}, scores {:.1e}, boxes {:.1e} px".format(*measured))
learn.check("half_precision", *measured)

# %% [markdown]
# ## 6. An engine without a GPU
#
# TensorRT turns a file into an **engine**: kernels chosen for a kind of GPU and for sizes of
# input, its **profile**. TensorRT-RTX builds engines on any machine; to run one takes the GPU.

# %%
engine, size = folder / "model.engine", (1, 3, 128, 128)
try:
    if learn.full_or_smoke(False, True):
        raise InputError("left out of a short run")
    built = build_engine(path, engine, profile=Profile(size, size, size), plugin="none")
    for name in ("size", "for", "our operators"):
        print(f"{name:14} {built.facts[name]}")
    sessions, not_run = find.find_sessions(detector, (), engines=[engine])
    for name, why in not_run.items():
        print(f"{name} was built and not run: {why}")
    for session in sessions:
        off = np.abs(session.all_outputs(images)["scores"] - ours["scores"]).max()
        print(f"{session.title}: scores {off:.1e} from PyTorch's")
except InputError as error:
    print("no engine:", error)

# %% [markdown]
# No plugin was asked for. `tensormask-export engine --plugin cpp` takes it, or ends with an
# error.
#
# ## 7. Where do two runs part?
#
# A file comes back from another tool. It opens, it runs, all shapes are right:

# %%
broken = lesson_12.broken(detector)  # do not read it yet
onnx.save(broken, folder / "broken.onnx")
print(report.verify(folder / "broken.onnx", checkpoint, **options).table())

# %% [markdown]
# All agree but masks. (The samples pass: they store six
# detections each.) So compare **layer by layer**. Every node's name says which module it came
# from, so PyTorch's layers and the file's tensors can be paired, in the order of
# computation:

# %%
pairs, _ = layers.both_sides(broken, graph, images)
names = list(pairs)
print(len(names), "layers:", ", ".join(names[:3]), "...", names[-1])
ours_by_layer, theirs_by_layer = zip(*pairs.values(), strict=True)

# %% [markdown]
# ### Exercise: the first that differs (15 min, ●●○)
#
# Two lists of arrays, a stage each. A stage **agrees** if both arrays have the same shape and
# no two numbers are further apart than the limit: `tolerance` if the largest absolute value of
# *ours* is at most 10, else in proportion, `tolerance * largest / 10`. Exactly the limit still
# agrees. A NaN in *theirs* never agrees. Return the number of the first stage that does not
# agree, from 0, or -1. No array is empty; *ours* holds no NaN.


# %%
@learn.exercise
def first_diverging(ours, theirs, tolerance):
    """ours, theirs: lists of arrays, a stage each, in the order of computation -> int."""
    ...


# %%
learn.check(first_diverging)

# %%
tolerance = compare.LIMITS["float32"].raw.value
first = first_diverging(ours_by_layer, theirs_by_layer, tolerance)
print(f"last that agrees: {names[first - 1]}. First that does not: {names[first]}")
whole, _ = layers.both_sides(detector, graph, images)
runs = {
    name: [np.abs(a - b).max() / max(1, np.abs(a).max() / 10) for a, b in both.values()]
    for name, both in (("the whole file", whole), ("the broken file", pairs))
}
viz.curves.apart_by_layer(runs, tolerance, first)

# %% [markdown]
# *A point per layer and file; for values beyond 10 in proportion. Four layers are off: the one
# at the line and those it feeds.*
#
# What computes masks is `MaskBranch`, level by level:
#
# ```text
# for each level:                  a call of `fuse`
#     m = features of this level, resized to level 0's grid
#     m = m + features of level 0
#     m = fuse(m)                  0 convolution, 1 normalisation, 2 ReLU
# ```
#
# `fuse.1`, call 2 is level 1's normalisation. Its weights are those of call 1, which agrees. So
# its *input* is wrong. How the file resizes what comes between these layers:

# %%
resizes = [
    node
    for node in broken.graph.node
    if node.op_type == "Resize" and layers.scope_of(node)[0] == ["network", "mask_branch"]
]
for node in resizes:
    said = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    print(*(said[key].decode() for key in ("mode", "coordinate_transformation_mode")))

# %% [markdown]
# The first says `asymmetric`, a map's samples lie at the corners of their cells;
# PyTorch and the other levels have them in the middle, `half_pixel`. So level 1's map is moved
# by a part of a cell, and every shape is right. Mend it:

# %%
for node in resizes:
    for attribute in node.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"half_pixel"
mended, _ = layers.both_sides(broken, graph, images)
print("first that differs:", first_diverging(*zip(*mended.values(), strict=True), tolerance))

# %% [markdown]
# -1: none. `tensormask-export verify broken.onnx shapes --bisect` searches like this.
#
# ## If you see this ...
#
# | you see | probably |
# |---|---|
# | nothing found, no error | pixels of 0 to 255 for 0 to 1 |
# | boxes right, masks moved | another convention in a `Resize` |
# | "equal" for a run full of NaN | asked with `>`: every comparison with NaN is False |
#
# ## Recap
#
# - A node that ONNX does not know needs a function body or a plugin.
# - Equal means within a limit that has a reason.
# - An error travels on. Look for the first layer that differs, then at what feeds it.
#
# | paper | code | lesson |
# |---|---|---|
# | `swap_align2nat`, section on the bipyramid | `ops.swap_align2nat`, `write.add_bodies` | 12, parts 1 and 2 |
# | `align2nat`, section on representations | `flat_places`, `ops.swap_align2nat_windows` | 12, part 3 |
# | tensor bipyramid, section on it | `heads.MaskBranch` | 12, part 7 |
# | export, in no section | `verify.layers.both_sides` | 12, part 7 |
#
# More: [deployment](../docs/deployment.md).
#
# ## The question of the course
#
# *How can one network, without cutting the image into crops, draw the exact outline of every
# object in it?* By answering for all windows at once: their masks are one tensor (V, U, H, W),
# which convolutions compute like any feature map (03). Filed under the pixels they speak of
# (04), few channels give fine masks (05), and large windows trade cells for bins (06). A rule
# says which windows learn (08), three losses teach them (09). *Exact* it is to within a bin:
# that is the ceiling. That it is the same elsewhere, you have shown.
#
# {{ last }}
