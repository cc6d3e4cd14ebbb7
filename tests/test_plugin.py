"""The TensorRT plugins in C++ and Python without a GPU: emulated, and as users build them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from exported import needs_rtx
from tensormask_export import contract
from tensormask_export.engine import plugin, python_plugin
from test_kernels import CASES, FORMS, cells, draw, error, out_shape, word
from tolerances import OP_REL

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.ops import build, cpu, cuda

TESTS, PLUGINS = ROOT / "tests", ROOT / "plugins"
HEADERS = os.environ.get("TENSORRT_INCLUDE_DIR", "")
PYTHONS = [path for path in os.environ.get("TENSORRT_PYTHONS", "").split(os.pathsep) if path]
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
CUDA_HEADERS = [
    f for f in cuda._header_candidates() if (f / "crt" / "host_defines.h").is_file()
]

needs_compiler = pytest.mark.skipif(
    build.find_compiler() is None, reason="no C++ compiler found"
)
needs_headers = pytest.mark.skipif(
    not HEADERS,
    reason="no TensorRT headers: set TENSORRT_INCLUDE_DIR to the folder of NvInferRuntime.h",
)
needs_cuda_headers = pytest.mark.skipif(
    not CUDA_HEADERS, reason="no CUDA toolkit with headers found"
)
needs_nvcc = pytest.mark.skipif(
    not (NVCC and shutil.which("cmake")), reason="no nvcc or no CMake found"
)

HALVES = {torch.float32: 0, torch.float16: 1}
SWAP, SWAP_WINDOWS = contract.SWAP, contract.SWAP_WINDOWS
PAD = -6.0


def compiled(folder: Path, *sources: Path) -> ctypes.CDLL:
    """C++ sources as one library, warnings being errors."""
    includes = [f"-I{PLUGINS / 'swap_align2nat'}", f"-I{TESTS}"]
    if HEADERS and CUDA_HEADERS:
        includes += ["-isystem", HEADERS, "-isystem", str(CUDA_HEADERS[0])]
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    library = folder / "emulated.so"
    words = [build.find_compiler(), *flags, *includes, *map(str, sources), "-o", str(library)]
    subprocess.run(words, check=True)
    return ctypes.CDLL(str(library))


def longs(*values: int) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class Output:
    """A tensor full of NaN between margins that a stray write would change."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        count = int(np.prod(shape))
        self.memory = torch.full((count + 128,), 77, dtype=dtype)
        self.tensor = self.memory[64 : 64 + count].fill_(torch.nan).view(shape)

    def written(self) -> torch.Tensor:
        assert (self.memory[:64] == 77).all() and (self.memory[-64:] == 77).all()
        return self.tensor


# --- launches: those of the torch op, and right -----------------------------------------------


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    """launch.cu for the CPU."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler found")
    return compiled(tmp_path_factory.mktemp("launch"), TESTS / "emulated_launch.cpp")


def last_launch(emulator) -> tuple[int, ...]:
    words = longs(*[0] * 32)
    return tuple(words[: emulator.last_launch(words)])


@pytest.fixture
def torch_launches(monkeypatch):
    """Launches of `ops.cuda`, as the emulator lists them; nothing runs."""
    launches = []

    def launch(call):
        blocks, threads, shared_bytes, _ = call.launch
        launches.append((blocks, threads, shared_bytes, *map(word, call.arguments)))

    monkeypatch.setattr(cuda, "_launch", launch)
    return launches


LAUNCHED = {**CASES, **{name: (shape, lam) for name, (_, shape, lam) in FORMS.items()}}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", LAUNCHED)
def test_a_layer_is_launched_as_the_torch_op_is(name, dtype, emulator, torch_launches):
    shape, lam = LAUNCHED[name]
    x, out = draw(shape, dtype), Output(out_shape(shape, lam), dtype)
    sizes = longs(*shape, lam)
    arguments = (HALVES[dtype], pointer(x), pointer(out.tensor), ctypes.c_double(PAD), sizes)
    assert emulator.emulated_forward(*arguments) == 0
    expected = reference.swap_align2nat(x.double().numpy(), lam, PAD)
    assert error(out.written(), expected, float(x.abs().max()), PAD) <= OP_REL[dtype]
    cuda.forward(x, lam, PAD, out.tensor)
    assert last_launch(emulator) == torch_launches[0]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_windows_layer_is_launched_as_the_torch_op_is(name, dtype, emulator, torch_launches):
    shape, lam = CASES[name]
    x, index = draw(shape, dtype), cells(shape, lam, 4)
    out = Output((len(index), lam * shape[1], lam * shape[2]), dtype)
    windows = (
        pointer(x),
        pointer(index),
        pointer(out.tensor),
        ctypes.c_double(PAD),
        longs(*shape, lam),
    )
    assert emulator.emulated_windows(HALVES[dtype], *windows, ctypes.c_int64(len(index))) == 0
    expected = reference.swap_align2nat_windows(x.double().numpy(), lam, index.numpy(), PAD)
    assert error(out.written(), expected, 6.0) <= OP_REL[dtype]
    cuda.forward_windows(x, lam, index, PAD, out.tensor)
    assert last_launch(emulator) == torch_launches[0]


def test_nothing_is_launched_for_empty_tensors(emulator):
    x, sizes, pad = torch.empty(0), longs(0, 3, 3, 4, 4, 2), ctypes.c_double(PAD)
    assert emulator.emulated_forward(0, pointer(x), pointer(x), pad, sizes) == 0
    assert last_launch(emulator) == ()
    assert emulator.emulated_windows(0, *[pointer(x)] * 3, pad, sizes, ctypes.c_int64(0)) == 0
    assert last_launch(emulator) == ()


FAR = 2**62
OUTSIDE = [
    (-1, 0, 0),
    (2, 0, 0),
    (0, -1, 0),
    (0, 4, 0),
    (0, 0, -1),
    (1, 0, 5),
    (0, FAR, 0),
    (-FAR, FAR, 0),
]


@pytest.mark.parametrize("cell", OUTSIDE, ids=str)
def test_a_window_outside_the_grid_is_padding_and_reads_nothing(cell, emulator):
    shape, lam = (2, 5, 3, 7, 9), 2  # a grid of 2 x 4 x 5 cells; windows reach over its rim
    x, index = torch.full(shape, torch.nan), torch.tensor([cell], dtype=torch.int64)
    out = Output((1, 10, 6), torch.float32)
    windows = (
        pointer(x),
        pointer(index),
        pointer(out.tensor),
        ctypes.c_double(PAD),
        longs(*shape, lam),
    )
    assert emulator.emulated_windows(0, *windows, ctypes.c_int64(1)) == 0
    assert (out.written() == PAD).all()


# --- the plugin in C++, on the emulated device ------------------------------------------------

FLOAT, HALF, INT32, INT64, LINEAR, CHW2 = 0, 1, 3, 8, 0, 1  # DataType and TensorFormat
FIELD_FLOAT64, FIELD_FLOAT32, FIELD_INT32 = 2, 1, 5


class Field(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("bytes", ctypes.c_char * 8),
    ]


def field(name: str, value: int | float, kind: int | None = None, length: int = 1) -> Field:
    chosen = (
        kind if kind is not None else FIELD_FLOAT32 if isinstance(value, float) else FIELD_INT32
    )
    code = {FIELD_FLOAT32: "f", FIELD_FLOAT64: "d", FIELD_INT32: "i"}[chosen]
    made = Field(name.encode(), chosen, length)
    packed = struct.pack(code, value)
    ctypes.memmove(ctypes.addressof(made) + Field.bytes.offset, packed, len(packed))
    return made


def given(*fields: Field):
    """Fields as the emulated plugin's functions take them."""
    return (Field * len(fields))(*fields), len(fields)


def attributes(lam: int = 2, pad_value: float = PAD):
    return given(field("lam", lam), field("pad_value", pad_value))


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    """The C++ plugins on the emulated device."""
    sources = (TESTS / "emulated_launch.cpp", TESTS / "emulated_plugin.cpp")
    folder = tmp_path_factory.mktemp("plugin")
    library = compiled(folder, *sources, PLUGINS / "swap_align2nat" / "tensorrt" / "plugin.cpp")
    library.plugin_timing_id.restype = ctypes.c_char_p
    return library


@needs_headers
@needs_cuda_headers
@needs_compiler
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["rows_not_divisible", "odd_lam_has_an_exact_phase"])
def test_the_cpp_plugin_stored_and_loaded_computes_the_reference(name, dtype, cpp):
    shape, lam = CASES[name]
    x, index = draw(shape, dtype), cells(shape, lam, 4)
    index[1] = torch.tensor([0, -1, 0])
    dense = Output(out_shape(shape, lam), dtype)
    windows = Output((5, lam * shape[1], lam * shape[2]), dtype)
    kinds = (HALVES[dtype], longs(*shape))
    fields = attributes(lam)
    places = (0, pointer(x), None, pointer(dense.tensor))
    assert cpp.plugin_run(SWAP.encode(), *fields, *kinds, *places) == 0
    expected = reference.swap_align2nat(x.double().numpy(), lam, PAD)
    assert error(dense.written(), expected, float(x.abs().max()), PAD) <= OP_REL[dtype]
    places = (ctypes.c_int64(5), pointer(x), pointer(index), pointer(windows.tensor))
    assert cpp.plugin_run(SWAP_WINDOWS.encode(), *fields, *kinds, *places) == 0
    inside = [0, 2, 3, 4]
    found = windows.written()
    expected = reference.swap_align2nat_windows(
        x.double().numpy(), lam, index[inside].numpy(), PAD
    )
    assert error(found[inside], expected, 6.0) <= OP_REL[dtype]
    assert (found[1] == PAD).all()


@needs_headers
@needs_cuda_headers
@needs_compiler
def test_the_cpp_plugin_takes_float_and_half_in_linear_layout_and_int64_indices(cpp):
    def bits(
        name: str, types: tuple[int, ...], formats: tuple[int, ...] = (LINEAR,) * 3
    ) -> int:
        arrays = [(ctypes.c_int32 * 3)(*numbers) for numbers in (types, formats)]
        return cpp.plugin_formats(name.encode(), *attributes(), *arrays, len(types))

    assert bits(SWAP, (FLOAT, FLOAT)) == bits(SWAP, (HALF, HALF)) == 0b11
    assert bits(SWAP, (FLOAT, HALF)) == 0b01
    assert bits(SWAP, (INT32, INT32)) == 0b10
    assert bits(SWAP, (FLOAT, FLOAT), (LINEAR, CHW2)) == 0b01
    assert bits(SWAP_WINDOWS, (HALF, INT64, HALF)) == 0b111
    assert bits(SWAP_WINDOWS, (HALF, INT32, FLOAT)) == 0b001


@needs_headers
@needs_cuda_headers
@needs_compiler
def test_the_cpp_plugin_names_a_type_it_does_not_take(cpp, capfd):
    def out(name: str, *types: int) -> int:
        return cpp.plugin_output_type(
            name.encode(), *attributes(), (ctypes.c_int32 * 4)(*types), len(types)
        )

    assert (
        out(SWAP, HALF) == out(SWAP_WINDOWS, HALF, INT64) == HALF and out(SWAP, FLOAT) == FLOAT
    )
    assert out(SWAP, INT32) == out(SWAP_WINDOWS, FLOAT, INT32) == out(SWAP, FLOAT, FLOAT) == -1
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "SwapAlign2Nat: x: expected float32 or float16, got type number 3",
        "SwapAlign2NatWindows: index: expected int64, got type number 3",
        "SwapAlign2Nat: expected 1 inputs, got 2",
    ]


@needs_headers
@needs_cuda_headers
@needs_compiler
def test_layers_that_differ_do_not_share_timings(cpp):
    names = {
        cpp.plugin_timing_id(SWAP.encode(), *attributes(*a))
        for a in ((2, -6.0), (3, -6.0), (2, -6.5))
    }
    assert len(names) == 3


WRONG_FIELDS = {
    "no fields": ((), "lam: the attribute is missing"),
    "no pad_value": ((field("lam", 2),), "pad_value: the attribute is missing"),
    "lam of 0": (
        (field("lam", 0), field("pad_value", PAD)),
        "lam: expected an integer >= 1, got 0",
    ),
    "lam a float": (
        (field("lam", 2.0), field("pad_value", PAD)),
        "lam: expected one number of field type 5, got 1 of type 1",
    ),
    "lam two numbers": (
        (field("lam", 2, length=2), field("pad_value", PAD)),
        "lam: expected one number of field type 5, got 2 of type 5",
    ),
    "pad_value a double": (
        (field("lam", 2), field("pad_value", PAD, FIELD_FLOAT64)),
        "pad_value: expected one number of field type 1, got 1 of type 2",
    ),
    "pad_value infinite": (
        (field("lam", 2), field("pad_value", float("inf"))),
        "pad_value: expected a finite number",
    ),
    "another name": (
        (field("lam", 2), field("pad_value", PAD), field("window", 15)),
        "no attribute is called window; lam and pad_value are",
    ),
}


@needs_headers
@needs_cuda_headers
@needs_compiler
@pytest.mark.parametrize("case", WRONG_FIELDS)
@pytest.mark.parametrize("name", [SWAP, SWAP_WINDOWS])
def test_the_cpp_creator_refuses_wrong_attributes_in_one_line(name, case, cpp, capfd):
    fields, message = WRONG_FIELDS[case]
    assert cpp.plugin_exists(name.encode(), *attributes()) == 1
    assert cpp.plugin_exists(name.encode(), *given(*fields)) == 0
    assert capfd.readouterr().err == f"{name}: {message}\n"


# --- the plugin in Python ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def rtx():
    import tensorrt_rtx

    python_plugin.register(tensorrt_rtx)
    return tensorrt_rtx


def create(trt, name: str, **values: np.ndarray):
    """A layer from the registry, as the parser makes it."""
    kinds = {"i": trt.PluginFieldType.INT32, "f": trt.PluginFieldType.FLOAT32}
    fields = [
        trt.PluginField(key, value, kinds[value.dtype.kind]) for key, value in values.items()
    ]
    creator = plugin.find_creator(trt, name)
    return creator.create_plugin(
        "layer", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD
    )


LAM2 = np.array([2], np.int32)
PAD6 = np.array([PAD], np.float32)


@needs_rtx
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", [SWAP, SWAP_WINDOWS])
def test_the_python_plugin_computes_in_tensorrts_memory(
    name, dtype, rtx, emulator, monkeypatch
):
    """Host addresses play those of a device, and the emulator runs what is launched."""
    shape, lam = (2, 3, 2, 7, 9), 2
    x, index = draw(shape, dtype), cells(shape, lam, 4)
    windows = name == SWAP_WINDOWS
    out = Output((5, 6, 4) if windows else out_shape(shape, lam), dtype)
    memory = {tensor.data_ptr(): tensor for tensor in (x, index, out.tensor)}

    def at(address, shape, kind):
        assert shape == tuple(memory[address].shape)
        assert np.dtype(kind) == memory[address].numpy().dtype
        return memory[address]

    def launch(call):
        words = longs(*map(word, call.arguments))
        kind = cpu.DTYPES[call.tensors[0].dtype], call.parameters[0] if call.parameters else 0
        run = (call.kernel.encode(), *kind, longs(*call.launch), words)
        assert emulator.emulate(*run, ctypes.c_int64(len(words))) == 0

    streams = []
    monkeypatch.setattr(cuda, "_launch", launch)
    monkeypatch.setattr(python_plugin, "device_tensor", at)
    monkeypatch.setattr(
        python_plugin, "on_stream", lambda s: streams.append(s) or torch.no_grad()
    )
    layer = create(rtx, name, lam=LAM2, pad_value=PAD6).attach_to_context(None)
    trt_type = rtx.DataType.HALF if dtype == torch.float16 else rtx.DataType.FLOAT
    descriptions = [SimpleNamespace(dims=shape, type=trt_type), SimpleNamespace(dims=(5, 3))]
    result = [SimpleNamespace(dims=tuple(out.tensor.shape))]
    addresses = [x.data_ptr(), index.data_ptr()]
    count = 2 if windows else 1
    layer.enqueue(
        descriptions[:count], result, addresses[:count], [out.tensor.data_ptr()], 0, 17
    )
    wide = x.double().numpy()
    expected = (
        reference.swap_align2nat_windows(wide, lam, index.numpy(), PAD)
        if windows
        else reference.swap_align2nat(wide, lam, PAD)
    )
    assert error(out.written(), expected, 6.0) <= OP_REL[dtype] and streams == [17]


@needs_rtx
def test_the_python_plugin_takes_what_the_cpp_plugin_takes(rtx):
    kinds, linear = rtx.DataType, rtx.TensorFormat.LINEAR

    def fits(name: str, *types) -> list[bool]:
        tensors = [SimpleNamespace(desc=SimpleNamespace(type=t, format=linear)) for t in types]
        layer = create(rtx, name, lam=LAM2, pad_value=PAD6)
        return [
            layer.supports_format_combination(i, tensors, len(types) - 1)
            for i in range(len(types))
        ]

    assert fits(SWAP, kinds.HALF, kinds.HALF) == [True, True]
    assert fits(SWAP, kinds.FLOAT, kinds.HALF) == [True, False]
    assert fits(SWAP_WINDOWS, kinds.FLOAT, kinds.INT64, kinds.FLOAT) == [True] * 3
    assert fits(SWAP_WINDOWS, kinds.INT32, kinds.INT32, kinds.INT32) == [False, False, True]


@needs_rtx
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lam": LAM2}, "attributes: expected lam and pad_value, got ['lam']"),
        ({"lam": 0 * LAM2, "pad_value": PAD6}, "lam: expected an integer >= 1, got [0]"),
        ({"lam": PAD6, "pad_value": PAD6}, "lam: expected an integer >= 1, got [-6.0]"),
        (
            {"lam": LAM2, "pad_value": np.float32([np.nan])},
            "pad_value: expected a finite number, got [nan]",
        ),
    ],
)
def test_the_python_creator_refuses_wrong_attributes_in_one_line(values, message, rtx, capfd):
    assert create(rtx, SWAP, **values) is None
    assert capfd.readouterr().err == f"SwapAlign2Nat: {message}\n"


# --- which plugin is taken --------------------------------------------------------------------


@pytest.fixture
def nothing_built(monkeypatch, tmp_path):
    """No library is named, none is in build/plugins."""
    monkeypatch.delenv(plugin.VARIABLE, raising=False)
    monkeypatch.setattr(plugin, "BUILT", tmp_path / "build" / "plugins" / plugin.LIBRARY)
    return tmp_path


TENSORRT, RTX = SimpleNamespace(is_rtx=False), SimpleNamespace(is_rtx=True)


def test_auto_takes_the_library_that_is_named_or_built(nothing_built, monkeypatch):
    built = plugin.BUILT
    built.parent.mkdir(parents=True)
    built.write_bytes(b"library")
    chosen = plugin.choose("auto", RTX)
    assert (chosen.kind, chosen.library, chosen.why) == (
        "cpp",
        str(built),
        "built in build/plugins",
    )
    assert chosen.sha256 == hashlib.sha256(b"library").hexdigest()
    named = nothing_built / "other.so"
    named.write_bytes(b"other")
    monkeypatch.setenv(plugin.VARIABLE, str(named))
    assert plugin.choose("auto", RTX).why == "named by TENSORMASK_PLUGIN"
    assert plugin.choose("cpp", RTX, built).library == str(built)
    assert plugin.choose("none", RTX).library is None


def test_without_a_library_auto_is_python_for_tensorrt_and_none_for_rtx(
    nothing_built, monkeypatch
):
    monkeypatch.setattr(plugin, "find_spec", lambda name: object())
    assert plugin.choose("auto", TENSORRT).kind == "python"
    assert (
        plugin.choose("auto", RTX).kind == "none"
        and "TensorRT-RTX" in plugin.choose("auto", RTX).why
    )
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    assert plugin.choose("auto", TENSORRT).kind == "none"
    assert "tensormask-edu[cuda]" in plugin.choose("auto", TENSORRT).why


def test_a_library_that_is_not_there_is_an_error_and_no_fall_back(nothing_built, monkeypatch):
    with pytest.raises(
        InputError, match=r"expected a libswap_align2nat_trt\.so, got none; build it \(cmake"
    ):
        plugin.choose("cpp", RTX)
    monkeypatch.setenv(plugin.VARIABLE, "gone.so")
    for asked in ("auto", "cpp"):
        with pytest.raises(InputError, match=r"got no file gone\.so; build it: cmake"):
            plugin.choose(asked, RTX)
    with pytest.raises(InputError, match="expected auto, cpp, python, none, got 'c'"):
        plugin.choose("c", RTX)
    with pytest.raises(InputError, match="leave one of the two away"):
        plugin.choose("none", RTX, "some.so")


def test_a_process_holds_one_form_of_the_plugin(monkeypatch, tmp_path):
    loads = []
    monkeypatch.setattr(plugin, "_loaded", {})
    monkeypatch.setattr(plugin, "_load_library", lambda trt, path: loads.append(path))
    monkeypatch.setattr(plugin, "find_creator", lambda trt, name: object())
    trt = SimpleNamespace(__name__="tensorrt")
    for _ in range(2):
        plugin.load(trt, "cpp", tmp_path / "a.so")
    plugin.load(trt, "none")
    assert loads == [tmp_path / "a.so"]
    for other in (("python",), ("cpp", tmp_path / "b.so")):
        with pytest.raises(
            InputError, match=r"which this process has loaded, got .*; start a new process"
        ):
            plugin.load(trt, *other)


# --- the library, built as its users build it -------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The plugin from CMake and nvcc for one GPU generation, warnings being errors."""
    folder = tmp_path_factory.mktemp("cmake")
    warnings = "-Wall,-Wextra,-Werror"
    options = {
        "TENSORRT_INCLUDE_DIR": HEADERS,
        "CMAKE_CUDA_COMPILER": NVCC,
        "CMAKE_CUDA_ARCHITECTURES": "80",
        "CMAKE_CXX_FLAGS": " ".join(warnings.split(",")),
        "CMAKE_CUDA_FLAGS": f"-Xcompiler={warnings} -Werror all-warnings",
    }
    defined = [f"-D{key}={value}" for key, value in options.items()]
    words = ["cmake", "-S", PLUGINS, "-B", folder, *defined]
    subprocess.run(words, check=True, capture_output=True)
    build = ["cmake", "--build", folder, "--target", "swap_align2nat_trt"]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / plugin.LIBRARY


@needs_headers
@needs_nvcc
def test_the_library_exports_two_functions_and_needs_no_cuda_and_no_tensorrt(library):
    words = ["nm", "-D", "--defined-only", library]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert sorted(line.split()[-1] for line in listed.splitlines()) == [
        "getCreators",
        "setLoggerFinder",
    ]
    dynamic = subprocess.run(
        ["readelf", "-d", library], check=True, capture_output=True, text=True
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)
    assert "libc.so.6" in needed and not [
        name for name in needed if "nvinfer" in name or "cud" in name
    ]
    # Of glibc 2.35, where a compiler's own unwinder is linked in.
    words = ["nm", "-D", "--undefined-only", library]
    wanted = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "dlopen" in wanted and "_dl_find_object" not in wanted


def loaded(python: str, library: Path) -> dict:
    """What a Python's TensorRT makes of the library, in a process of its own."""
    run = subprocess.run(
        [python, TESTS / "load_plugin.py", library], capture_output=True, text=True
    )
    assert run.returncode == 0, f"{python}: {run.stdout}{run.stderr}"
    return json.loads(run.stdout)


@needs_headers
@needs_nvcc
@needs_rtx
@pytest.mark.parametrize("model", ["small", "tiny"])
def test_tensorrt_rtx_takes_the_library_and_builds_an_engine_with_it(
    model, library, request, tmp_path
):
    pytest.importorskip("onnx")
    from tensormask_export.engine.build import build_engine
    from tensormask_export.shapes import Profile

    answer = loaded(sys.executable, library)
    assert answer["created"] == answer["refused"] == [SWAP, SWAP_WINDOWS]
    report = build_engine(
        request.getfixturevalue(model)[1],
        tmp_path / "e",
        profile=Profile((1, 3, 32, 32), (1, 3, 64, 64), (2, 3, 64, 96)),
        sm=(80, 86, 89, 120),
        backend="tensorrt_rtx",
        plugin_library=library,
    )
    op, count = {"small": (SWAP, 4), "tiny": (SWAP_WINDOWS, 8)}[model]
    assert (
        report.layers["PLUGIN_V3"] == count and report.ops[op] == f"cpp plugin, {count} nodes"
    )
    assert report.plugin["kind"] == "cpp" and f"--dynamicPlugins={library}" in report.command
    assert report.plugin["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()


@needs_headers
@needs_nvcc
def test_the_same_library_gives_other_tensorrts_both_plugins(library):
    if not PYTHONS:
        pytest.skip(
            "no other TensorRT: set TENSORRT_PYTHONS to Pythons with tensorrt_lean 10 and 11"
        )
    for python in PYTHONS:
        answer = loaded(python, library)
        assert answer["created"] == answer["refused"] == [SWAP, SWAP_WINDOWS], answer


@needs_headers
@needs_nvcc
def test_cmake_names_the_cure_for_missing_headers(tmp_path):
    """An address that nobody answers plays a machine without a network."""
    redirect = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{tmp_path}/.insteadOf"}
    redirect["GIT_CONFIG_VALUE_0"] = "https://github.com/NVIDIA/"
    environment = {**os.environ, **redirect, "TENSORRT_INCLUDE_DIR": "", "TENSORRT_ROOT": ""}
    nowhere = [f"-DCMAKE_FIND_ROOT_PATH={tmp_path}", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"]
    words = ["cmake", "-S", PLUGINS, "-B", tmp_path / "build"]
    words += [f"-DCMAKE_CUDA_COMPILER={NVCC}", *nowhere]
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert run.returncode != 0
    assert "The TensorRT plugin needs TensorRT's headers" in run.stderr
    assert "-DTENSORRT_INCLUDE_DIR=DIR" in run.stderr and "-DSWAP_TRT_PLUGIN=OFF" in run.stderr
    words = [*words, f"-DTENSORRT_INCLUDE_DIR={tmp_path}"]
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (
        run.returncode != 0 and "expected the headers of TensorRT 10.0 or newer" in run.stderr
    )
