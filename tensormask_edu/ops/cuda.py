"""The kernels for CUDA tensors: compiled by NVRTC at first use, then kept.

    x:     (N, V, U, H, W)                              CUDA tensor, float64/32/16 or bfloat16
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))  its dtype
    index: (K, 3) int64, the cells (n, y, x) of K windows;  windows op: out (K, lam*V, lam*U)

Kernels run on torch's current stream; nothing waits for the device and all memory is torch's,
so the calls may be captured in a CUDA graph once the kernels are loaded (run the op once
before). The functions trust their arguments: the public op checks them once. Source:
`plugins/swap_align2nat/gpu/kernels.cu`. No compiler is needed on the user's machine, only
cuda-core, nvidia-cuda-nvrtc and, for 16-bit types, nvidia-cuda-runtime.

next: ops/ptx/text.py
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import build

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

# dtype -> its name in kernels.cu, and the macro that lets its header in
TYPES = {
    torch.float64: ("double", None),
    torch.float32: ("float", None),
    torch.float16: ("swap_align2nat::Half", "SWAP_NEEDS_HALF"),
    torch.bfloat16: ("swap_align2nat::BFloat16", "SWAP_NEEDS_BFLOAT16"),
}
HEADERS = {"SWAP_NEEDS_HALF": "cuda_fp16.h", "SWAP_NEEDS_BFLOAT16": "cuda_bf16.h"}

# --- the four functions -----------------------------------------------------------------------


def forward(x: Tensor, lam: int, pad_value: float, out: Tensor | None = None) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)); into `out` if given."""
    x = x.contiguous()
    n, v, u, height, width = x.shape
    if out is None:
        out = x.new_empty(n, lam * v, lam * u, -(-height // lam), -(-width // lam))
    if out.numel():
        _launch(next(forward_calls(x, lam, pad_value, out)))
    return out


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """The adjoint of `forward`: gradient of the output -> (N, V, U, height, width)."""
    grad = grad.contiguous()
    n, fine_v, fine_u = grad.shape[:3]
    grad_x = grad.new_empty(n, fine_v // lam, fine_u // lam, height, width)
    if grad_x.numel():
        _launch(next(backward_calls(grad, lam, grad_x)))
    return grad_x


def forward_windows(
    x: Tensor, lam: int, index: Tensor, pad_value: float, out: Tensor | None = None
) -> Tensor:
    """The windows at the cells `index` alone: (K, lam*V, lam*U); into `out` if given."""
    x, index = x.contiguous(), index.contiguous()
    v, u = x.shape[1:3]
    if out is None:
        out = x.new_empty(len(index), lam * v, lam * u)
    if out.numel():
        _launch(next(forward_windows_calls(x, lam, index, pad_value, out)))
    return out


def backward_windows(
    grad: Tensor, lam: int, index: Tensor, input_shape: tuple[int, ...]
) -> Tensor:
    """The adjoint of `forward_windows`; windows that occur twice in `index` add."""
    grad, index = grad.contiguous(), index.contiguous()
    # Zeros: what no window reads is not visited where windows are few.
    grad_x = grad.new_zeros(tuple(input_shape))
    if len(index) and grad_x.numel():
        _launch(next(backward_windows_calls(grad, lam, index, grad_x)))
    return grad_x


# --- the kernels behind them ------------------------------------------------------------------


class Call(NamedTuple):
    """A kernel with its launch and its arguments, of which the last tensor is written."""

    kernel: str  # its name in kernels.cu
    parameters: tuple[int, ...]  # of the template, behind the type
    launch: Launch
    # In the kernel's order: tensors go as addresses, and all as 64 bits.
    arguments: tuple[Tensor | float | int, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]

    @property
    def spelled(self) -> str:
        """The kernel's name with its template's arguments, as NVRTC is told it."""
        return _spelled(self.kernel, self.tensors[0].dtype, self.parameters)


def forward_calls(x: Tensor, lam: int, pad_value: float, out: Tensor) -> Iterator[Call]:
    """Every kernel that can compute `forward` of these tensors, the best one first."""
    arguments = (x, out, float(pad_value), *x.shape, lam)
    for columns in sorted({columns_at_once(x, FORWARD_AT_ONCE), 1}, reverse=True):
        launch = forward_launch(x.shape, lam, columns, x.element_size())
        if launch.blocks:  # a tile fits
            yield Call("forward_tiles", (columns,), launch, (*arguments, launch.tile))
    yield Call("forward_elements", (), element_launch(out.numel()), arguments)


def backward_calls(grad: Tensor, lam: int, grad_x: Tensor) -> Iterator[Call]:
    """Every kernel that can compute `backward` of these tensors, the best one first."""
    arguments = (grad, grad_x, *grad_x.shape, lam)
    for columns in sorted({columns_at_once(grad_x, BACKWARD_AT_ONCE), 1}, reverse=True):
        launch = backward_launch(grad_x.shape, lam, columns, grad.element_size())
        if launch.blocks:
            yield Call("backward_tiles", (columns,), launch, (*arguments, launch.tile))
    yield Call("backward_elements", (), element_launch(grad_x.numel()), arguments)


def forward_windows_calls(
    x: Tensor, lam: int, index: Tensor, pad_value: float, out: Tensor
) -> Iterator[Call]:
    """The kernel that computes `forward_windows`."""
    arguments = (x, index, out, float(pad_value), *x.shape, lam, len(index))
    yield Call("forward_windows", (), element_launch(out.numel()), arguments)


def backward_windows_calls(
    grad: Tensor, lam: int, index: Tensor, grad_x: Tensor
) -> Iterator[Call]:
    """Both kernels that compute `backward_windows` into zeros, the better one first."""
    shape, count = grad_x.shape, len(index)
    start, order = cell_lists(index, shape, lam)
    read = count * elements_read(shape, lam)
    few = (grad, index, start, order, grad_x, *shape, lam, count)
    every = (grad, start, order, grad_x, *shape, lam)
    # One thread per element that a window reads, else one per element.
    calls = [
        Call("backward_few_windows", (), element_launch(read), few),
        Call("backward_windows", (), element_launch(grad_x.numel()), every),
    ]
    yield from calls if read < grad_x.numel() else reversed(calls)


def cell_lists(index: Tensor, shape: tuple[int, ...], lam: int) -> tuple[Tensor, Tensor]:
    """The windows of cell c are order[start[c]:start[c + 1]], in the order of `index`."""
    rows, columns = -(-shape[3] // lam), -(-shape[4] // lam)
    # (n, y, x) as one number: (K,)
    cells = (index[:, 0] * rows + index[:, 1]) * columns + index[:, 2]
    # The sort is stable: repeated windows add in one order, so every run gives the same bits.
    cells, order = torch.sort(cells, stable=True)
    every_cell = torch.arange(shape[0] * rows * columns + 1, device=index.device)
    return torch.searchsorted(cells, every_cell), order


# --- launch shapes: the numbers of kernels.cu, which a test holds equal -----------------------
# They are told twice, because a user of the torch op has no compiler to ask kernels.cu, and
# TensorRT's plugin, which asks it (launch.cu), has no Python. There are no other places.
# core.h explains groups and slots, kernels.cu the constants. A tile is a block's part of a row.

GROUPS, PASSES, TEAMS = 2, 2, 4
FORWARD_STEPS, BACKWARD_STEPS, BACKWARD_ROWS = 16, 16, 6
FORWARD_ROWS, FORWARD_ROWS_16 = 2, 4
FORWARD_THREADS, FORWARD_BLOCK, FORWARD_BLOCK_16, ELEMENT_THREADS = 224, 480, 384, 256
BACKWARD_THREADS = {1: 384, 2: 256}  # by the columns of a thread
BACKWARD_COLUMNS = 384  # of a tile, at most
FORWARD_AT_ONCE, BACKWARD_AT_ONCE = 4, 2  # columns of a thread
MAX_SHARED_BYTES, SHORT_ROW, MOST_BLOCKS = 48 << 10, 64, 2**31 - 1


class Launch(NamedTuple):
    """A grid of blocks of threads; no blocks: this kernel does not fit the shape."""

    blocks: int
    threads: int
    shared_bytes: int
    tile: int


NO_LAUNCH = Launch(0, 0, 0, 0)


def forward_launch(shape: tuple[int, ...], lam: int, columns: int, item_bytes: int) -> Launch:
    """The launch of `forward_tiles`; `tile` counts cells."""
    n, v, u, height, width = shape
    coarse = -(-width // lam)
    # Cells at the ends of what a thread reads at once; cells that a step of the walk touches.
    rim = 0 if lam % (2 * columns) == 0 else -(-(columns - 1) // lam)
    step = coarse + 1 + rim
    while step * lam % columns:
        step += 1
    # Cells of a block at most, one thread per `columns` input columns.
    most = (FORWARD_THREADS - 1) * columns // lam
    if not most or not _offsets_fit(shape, lam, item_bytes):
        return NO_LAUNCH
    if step <= most:  # one tile, which rolls
        tiles, tile, ring, own = 1, step, step, lam * step
    else:  # as few as hold all cells, which are dealt evenly to them
        cells = coarse + FORWARD_STEPS - 1
        tiles = -(-cells // most)
        tile = -(-cells // tiles)
        ring, own = tile + 2 * rim, lam * tile + columns - 1
    rows = FORWARD_ROWS if item_bytes > 2 else FORWARD_ROWS_16
    # From a phase to the next, from thread to thread, and the last one's cells.
    between, skew = -(-ring // 2) * 2, -(-8 * columns // lam)
    places = (lam - 1) * between + (lam - 1) // columns * skew + ring
    stage = _stage_bytes(places, GROUPS * rows * item_bytes)
    if stage > MAX_SHARED_BYTES:
        return NO_LAUNCH
    threads = -(-own // columns)
    block = FORWARD_BLOCK if item_bytes > 2 else FORWARD_BLOCK_16
    teams = min(block // threads, MAX_SHARED_BYTES // stage, TEAMS)
    # A block: GROUPS groups along v, FORWARD_STEPS along u, one tile, a team's slots each.
    cells_y = -(-height // lam) + GROUPS - 1
    if step <= most and lam % rows == 0 and coarse * item_bytes < SHORT_ROW:  # a cell apart
        slots = lam // rows * -(-cells_y // teams)
    else:  # side by side
        slots = -(-lam * cells_y // (rows * teams))
    blocks = n * -(-(v + 1) // GROUPS) * -(-(u + 1) // FORWARD_STEPS) * slots * tiles
    if blocks > MOST_BLOCKS:
        return NO_LAUNCH
    return Launch(blocks, teams * threads, teams * stage, tile)


def backward_launch(shape: tuple[int, ...], lam: int, columns: int, item_bytes: int) -> Launch:
    """The launch of `backward_tiles` for an input of this shape; `tile` counts columns."""
    n, v, u, height, width = shape
    tiles = -(-width // (BACKWARD_COLUMNS // 3 if item_bytes > 4 else BACKWARD_COLUMNS))
    groups = -(-width // columns)  # of columns, one a thread
    tile = columns * -(-groups // tiles)
    cells = (tile + lam - 1) // lam + 1  # that a tile may touch, wherever it starts
    threads = max(-(-tile // columns), -(-lam * cells // PASSES))
    shared = _stage_bytes(lam * (cells | 1), GROUPS * BACKWARD_ROWS * max(item_bytes, 4))
    if (
        threads > BACKWARD_THREADS[columns]
        or shared > MAX_SHARED_BYTES
        or not _offsets_fit(shape, lam, item_bytes)
    ):
        return NO_LAUNCH
    blocks = n * -(-v // GROUPS) * -(-u // BACKWARD_STEPS) * -(-height // BACKWARD_ROWS) * tiles
    if blocks > MOST_BLOCKS:
        return NO_LAUNCH
    return Launch(blocks, _whole_warps(threads), shared, tile)


def element_launch(elements: int) -> Launch:
    """One thread per element."""
    return Launch(-(-elements // ELEMENT_THREADS), ELEMENT_THREADS, 0, 0)


def columns_at_once(x: Tensor, columns: int) -> int:
    """Columns of x that a thread of a tile kernel takes at once: `columns` or 1."""
    # A vector must not be split: by the end of a row, or by the address.
    item_bytes = x.element_size()
    aligned = x.shape[4] % columns == 0 and x.data_ptr() % (columns * item_bytes) == 0
    return columns if aligned and item_bytes <= 4 else 1


def elements_read(shape: tuple[int, ...], lam: int) -> int:
    """Input elements that one window reads, those outside the input counted too."""
    _, v, u, _, _ = shape
    return v * u * (2 * lam + (lam * v + 1) % 2) * (2 * lam + (lam * u + 1) % 2)


def _whole_warps(threads: int) -> int:
    return -(-threads // 32) * 32


def _stage_bytes(places: int, column_bytes: int) -> int:
    # Columns are an odd number of words apart: neighbours fall into different banks.
    word = 16 if column_bytes % 16 == 0 else 8
    return 2 * places * (column_bytes // word | 1) * word


def _offsets_fit(shape: tuple[int, ...], lam: int, item_bytes: int) -> bool:
    _, _, u, height, width = shape
    # Within a block the kernels add 32-bit offsets.
    out_plane = -(-height // lam) * -(-width // lam)
    most = max(height * width, lam * lam * out_plane)
    return (GROUPS + 2) * u * most * item_bytes < 1 << 31


# --- compiling and launching ------------------------------------------------------------------


def kernel_names(dtype: torch.dtype) -> list[str]:
    """Every kernel of one dtype, as kernels.cu spells it."""
    tiles = [("forward_tiles", FORWARD_AT_ONCE), ("backward_tiles", BACKWARD_AT_ONCE)]
    # Doubles go one by one: four would be 32 bytes, more than one load takes.
    counts = [{1} if dtype == torch.float64 else {1, columns} for _, columns in tiles]
    names = [
        _spelled(kernel, dtype, (columns,))
        for (kernel, _), wanted in zip(tiles, counts, strict=True)
        for columns in sorted(wanted)
    ]
    plain = ("forward_elements", "backward_elements")
    windows = ("forward_windows", "backward_windows", "backward_few_windows")
    return names + [_spelled(kernel, dtype, ()) for kernel in plain + windows]


def available() -> tuple[bool, str]:
    """Whether the CUDA kernels run here, and the reason in words. Loads those of float32."""
    try:
        import cuda.core  # noqa: F401
    except ImportError as error:
        return False, f"cuda-core is not installed ({error}); install tensormask-edu[cuda]"
    if not torch.cuda.is_available():
        return False, "PyTorch sees no CUDA device"
    architecture = _architecture(torch.cuda.current_device())  # "sm_90"
    try:
        _program(torch.float32, architecture)
    except Exception as error:  # whatever NVRTC or the driver objects to is the reason
        return False, f"compiling or loading the kernels for {architecture} failed: {error}"
    return True, f"compiled with NVRTC {nvrtc_version()} for {architecture}"


def status() -> str:
    """One line: what CUDA tensors run on, and why."""
    found, reason = available()
    return f"CUDA kernels: {reason}" if found else f"no CUDA kernels: {reason}"


class Usage(NamedTuple):
    """What the assembler reported for one kernel."""

    registers: int
    spilled_bytes: int
    stack_bytes: int


def compile_all(
    architecture: str, dtypes: Iterable[torch.dtype] = tuple(TYPES)
) -> dict[str, Usage]:
    """Compile every kernel for e.g. "sm_90", with or without a GPU: name -> what it uses."""
    report: dict[str, Usage] = {}
    for dtype in dtypes:
        _, symbols, log = _compile(dtype, architecture)
        used = _usage(log)  # by symbol, the name in the machine code
        report |= {
            name.replace("swap_align2nat::", ""): used[symbol]
            for name, symbol in symbols.items()
        }
    return report


def _usage(log: str) -> dict[str, Usage]:
    """Reads the assembler's report: symbol -> registers, spills, stack."""
    pattern = re.compile(
        r"Function properties for (\S+)\s.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads\s.*?Used (\d+) registers",
        re.S,
    )
    return {
        symbol: Usage(int(registers), int(stores) + int(loads), int(stack))
        for symbol, stack, stores, loads, registers in pattern.findall(log)
    }


def _spelled(kernel: str, dtype: torch.dtype, parameters: tuple[int, ...]) -> str:
    return f"swap_align2nat::{kernel}<{', '.join([TYPES[dtype][0], *map(str, parameters)])}>"


def _launch(call: Call) -> None:
    """Queues one kernel on the current stream; pointers and sizes go as 64-bit integers."""
    from cuda.core import LaunchConfig, Stream
    from cuda.core import launch as queue

    like, launch = call.tensors[0], call.launch
    with torch.cuda.device(like.device):
        program = _program(like.dtype, _architecture(like.device.index))
        # PyTorch's own stream: the kernel comes after what made its input.
        stream = Stream.from_handle(torch.cuda.current_stream().cuda_stream)
        config = LaunchConfig(
            grid=launch.blocks, block=launch.threads, shmem_size=launch.shared_bytes
        )
        words = (a.data_ptr() if isinstance(a, Tensor) else a for a in call.arguments)
        queue(stream, config, program[call.spelled], *words)


def _architecture(device: int) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def _program(dtype: torch.dtype, architecture: str) -> dict[str, Any]:
    """The kernels of one dtype, kept on disk or compiled: name -> kernel."""
    from cuda.core import ObjectCode

    def write(target: Path) -> None:
        code, symbols, _ = _compile(dtype, architecture)
        target.write_bytes(json.dumps(symbols).encode() + b"\n" + code)

    path = build.kept(f"cuda-{_key(dtype, architecture)}.kernels", write)
    symbols, _, code = path.read_bytes().partition(b"\n")  # JSON on the first line, the cubin
    binary = ObjectCode.from_cubin(code)
    return {name: binary.get_kernel(symbol) for name, symbol in json.loads(symbols).items()}


def _key(dtype: torch.dtype, architecture: str) -> str:
    versions = [importlib.metadata.version(name) for name in ("cuda-core", "cuda-bindings")]
    folder = build.kernel_folder()
    sources = [(folder / name).read_text() for name in ("core.h", "gpu/kernels.cu")]
    return build.key(*versions, *sources, nvrtc_version(), str(dtype), architecture)


def nvrtc_version() -> str:
    """The version of the compiler, such as "13.2"."""
    from cuda.bindings import nvrtc

    return ".".join(str(part) for part in nvrtc.nvrtcVersion()[1:])


def _compile(dtype: torch.dtype, architecture: str) -> tuple[bytes, dict[str, str], str]:
    """NVRTC: (cubin, name of each kernel -> symbol, the assembler's report)."""
    from cuda.core import Program, ProgramOptions

    macro, folder, log = TYPES[dtype][1], build.kernel_folder() / "gpu", io.StringIO()
    options = ProgramOptions(
        name="kernels.cu",
        arch=architecture,
        std="c++17",
        include_path=[str(folder), *([header_folder(HEADERS[macro])] if macro else [])],
        define_macro=[macro] if macro else None,
        ptxas_options=["-v"],
    )
    program = Program((folder / "kernels.cu").read_text(), "c++", options)
    names = kernel_names(dtype)  # templates: what is not named is not compiled
    binary = program.compile("cubin", name_expressions=tuple(names), logs=log)
    symbols = {name: binary.symbol_mapping[name].decode() for name in names}
    return bytes(binary.code), symbols, log.getvalue()


def header_folder(header: str) -> str:
    """The folder of a CUDA header: of nvidia-cuda-runtime, else of a toolkit here."""
    for folder in _header_candidates():
        if (folder / header).is_file():
            return str(folder)
    raise RuntimeError(
        f"{header} not found: install nvidia-cuda-runtime, or set CUDA_HOME to a CUDA toolkit"
    )


def _header_candidates() -> list[Path]:
    found = []
    for package in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found += [
            Path(str(file.locate())).parent for file in files if file.name == "cuda_fp16.h"
        ]
    # Then a toolkit: where it says it is, else the usual place.
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    return found + [Path(home) / "include" for home in homes if home]
