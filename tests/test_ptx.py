"""The kernels' PTX, executed: right, without faults; and what the executor must find.

No GPU is needed: NVRTC makes the PTX, `plugins/swap_align2nat/ptx` runs it. Single instructions
are written by hand and compared with Python's numbers.
"""

from __future__ import annotations

import importlib.util
import math
import struct
import sys

import numpy as np
import pytest
import torch
from tolerances import OP_REL

from tensormask_edu import cli, reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands import check_ptx
from tensormask_edu.commands.check_ops import CASES
from tensormask_edu.ops import build, cuda
from tensormask_edu.ops.ptx import estimate, text
from tensormask_edu.ops.ptx.execute import FAULTS, Run, execute
from tensormask_edu.ops.ptx.text import Ptx

OUTSIDE, READ_ONLY, MISALIGNED, RACE, UNWRITTEN, UNDEFINED, DIVERGED, ENDLESS = FAULTS
DTYPES = list(OP_REL)
pytestmark = [
    pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler"),
]
needs_nvrtc = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="cuda-core is not installed"
)
# One case per form of the kernels; `check-ops --device ptx` runs all.
QUICK = [
    number
    for number in check_ptx.NUMBERS
    if CASES[number].why
    in {
        "V != U: lam*V even, lam*U odd",
        "H and W no multiples of lam",
        "more bins than one walk of a GPU's block",
        "the first four columns half outside",
        "few windows of many",
    }
]


# --- the kernels ------------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kernel_is_right_and_does_nothing_that_it_must_not(dtype):
    report = check_ptx.check_ptx([dtype], QUICK, lams=())
    assert report["passed"], check_ptx.table(report)
    ran = {row["kernel"].replace(" ", "<") for row in report["results"]}
    wanted = {name.split("::")[1].split("<")[0] for name in cuda.kernel_names(dtype)}
    assert {name.split("<")[0] for name in ran} == wanted
    assert ("forward_tiles<4" in ran) == (dtype != torch.float64)


@needs_nvrtc
@pytest.mark.long
def test_the_whole_table_is_right(tmp_path, capsys):
    assert cli.main(["check-ops", "--device", "ptx", "--json", str(tmp_path / "ptx.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" ok") == 7 + 3 * 9 and "FAILED" not in shown


@needs_nvrtc
def test_costs_at_paper_size_are_those_of_the_launch():
    ptx = text.kernels(torch.float32)
    forward, backward = check_ptx.cost_rows(torch.float32, ptx, 4, (1, 3, 3, 20, 48))
    for row in (forward, backward):
        assert row["faults"] == 0
        assert row["instructions"] > 16 and 0 < row["lanes"] <= 32
        assert row["loaded"] >= 1 <= row["stored"] and row["waves"] >= 1
        assert 0 < row["H200_share"] <= row["H100_share"] <= 1
    assert forward["threads"] == cuda.forward_launch((1, 3, 3, 20, 48), 4, 4, 4).threads


@needs_nvrtc
def test_without_an_assembler_costs_are_told_as_if_there_were_registers_enough(monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'cuda.core'")

    monkeypatch.setattr(cuda, "compile_all", missing)
    check_ptx._usage.cache_clear()
    ptx = text.kernels(torch.float32)
    row = next(check_ptx.cost_rows(torch.float32, ptx, 4, (1, 3, 3, 20, 48)))
    check_ptx._usage.cache_clear()
    assert row["registers"] == 0 and row["warps"] > 0
    assert " - " in check_ptx.table({"results": [], "costs": [row]})


# --- mutants of the kernels -------------------------------------------------------------------

BARRIER, ONE_TOO_FAR = (
    "    __syncthreads();\n",
    "reinterpret_cast<const char*>(base) + bytes + 4",
)
# what: (text of kernels.cu, what stands there instead, which of its places, what is noticed)
MUTANTS = {
    "no_barrier_in_the_forward": (BARRIER, "", 0, RACE),
    "no_barrier_in_the_backward": (BARRIER, "", 1, RACE),
    "a_barrier_for_some": (BARRIER, "    if (threadIdx.x) __syncthreads();\n", 0, DIVERGED),
    "one_half_of_the_stage": ("(t & 1) * places", "0 * places", 0, RACE),
    "an_address_between_vectors": (
        "reinterpret_cast<const char*>(base) + bytes", ONE_TOO_FAR, 0, MISALIGNED,
    ),
    "a_row_too_far": ("row0 = nearest(first_row, H)", "row0 = first_row + H", 0, OUTSIDE),
    "a_value_too_many": ("first_v + k / ROWS < s.V", "first_v + k / ROWS <= s.V", 0, OUTSIDE),
    "taps_swapped": ("return {unit * A(2 * lam", "return {unit * A(2 + lam", 0, ""),
    "halves_of_the_blend_swapped": (
        "fused(of.upper, upper, of.lower * lower) : of(lower, upper)",
        "fused(of.upper, lower, of.lower * upper) : of(upper, lower)", 0, "",
    ),
}  # fmt: skip


def mutated(right: str, wrong: str, place: int) -> Ptx:
    """The tile kernels of float32 from a source with one mistake in it."""
    folder = build.kernel_folder()
    source = (folder / "gpu" / "kernels.cu").read_text()
    source = source.replace('#include "../core.h"', (folder / "core.h").read_text())
    parts = source.split(right)
    assert len(parts) > place + 1, right
    source = right.join(parts[: place + 1]) + wrong + right.join(parts[place + 1 :])
    names = [name for name in cuda.kernel_names(torch.float32) if "_tiles" in name]
    return text.compiled(source, names)


def run_tiles(ptx: Ptx) -> tuple[dict[str, int], float]:
    """Faults and error of forward and backward, in blocks of several warps."""
    shape, lam = (1, 3, 3, 10, 80), 3
    x = torch.empty(shape).uniform_(-3, 3)
    out = x.new_full((1, 9, 9, 4, 27), torch.nan)
    grad, grad_x = torch.empty_like(out).uniform_(-3, 3), torch.full_like(x, torch.nan)
    expected = reference.swap_align2nat(x.numpy(), lam, -6.0)
    expected_grad = reference.swap_align2nat_adjoint(grad.numpy(), lam, 10, 80)
    faults: dict[str, int] = {}
    for call in (
        next(cuda.forward_calls(x, lam, -6.0, out)),
        next(cuda.backward_calls(grad, lam, grad_x)),
    ):
        faults |= execute(ptx, call).faults
    errors = (out.numpy() - expected, grad_x.numpy() - expected_grad)
    return faults, max(float(np.abs(error).max()) for error in errors)


@needs_nvrtc
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_a_kernel_is_noticed(name):
    right, wrong, place, expected = MUTANTS[name]
    faults, error = run_tiles(mutated(right, wrong, place))
    if expected:
        assert set(faults) >= {expected}
    else:  # only numbers tell
        assert not faults and not error <= 1e-2


@needs_nvrtc
@pytest.mark.parametrize("less", [0, 1, 16])
def test_too_little_shared_memory_is_noticed(less):
    # Sixteen steps: more than once around the ring, in both halves of the stage.
    x, out = torch.ones(1, 1, 15, 6, 15), torch.empty(1, 2, 30, 3, 8)
    call = next(cuda.forward_calls(x, 2, -6.0, out))
    launch = call.launch
    small = launch._replace(shared_bytes=launch.shared_bytes - less)
    run = execute(text.kernels(torch.float32), call._replace(launch=small))
    assert set(run.faults) == ({OUTSIDE} if less else set())


@needs_nvrtc
def test_a_vector_kernel_for_rows_that_it_does_not_fit_is_noticed():
    shape, lam = (1, 3, 3, 6, 15), 2
    x, out = torch.ones(shape), torch.empty(1, 6, 6, 3, 8)
    call = next(cuda.forward_calls(x, lam, -6.0, out))
    assert call.parameters == (1,)
    launch = cuda.forward_launch(shape, lam, 4, 4)
    wrong = call._replace(
        parameters=(4,), launch=launch, arguments=(*call.arguments[:-1], launch.tile)
    )
    run = execute(text.kernels(torch.float32), wrong)
    assert MISALIGNED in run.faults
    assert "forward_tiles: an address that is no multiple of the access: line" in run.first[0]


@needs_nvrtc
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("first", [1, 2, 3])
def test_outputs_are_right_at_every_address(first, dtype):
    # Rows of four cells: vectors, where the address of the first allows them.
    x = torch.empty(1, 3, 3, 6, 16).uniform_(-3, 3).to(dtype)
    memory = x.new_full((12 * 12 * 2 * 4 + 8,), torch.nan)
    out = memory[first:][: 12 * 12 * 2 * 4].view(1, 12, 12, 2, 4)
    for call in cuda.forward_calls(x, 4, -6.0, out):
        memory.fill_(torch.nan)
        assert execute(text.kernels(dtype), call).faults == {}
        expected = reference.swap_align2nat(x.double().numpy(), 4, -6.0)
        error = np.abs(out.double().numpy() - expected).max()
        assert error <= OP_REL[dtype] * 6
        assert memory.isnan().sum() == 8


# --- small kernels, written for one thing -----------------------------------------------------


def run_by_hand(
    body: str, *tensors: torch.Tensor, threads: int = 32, blocks: int = 1, shared: int = 0
) -> Run:
    """A kernel of these statements; the tensors' addresses are in %rd90, %rd91, ..."""
    names = [f"k_param_{number}" for number in range(len(tensors))]
    loads = "".join(f"ld.param.u64 %rd9{k}, [{name}];\n" for k, name in enumerate(names))
    head = ",\n".join(f"\t.param .u64 {name}" for name in names)
    entry = f".visible .entry k(\n{head}\n)\n{{\n{loads}{body}\nret;\n}}\n"
    memory = ".extern .shared .align 16 .b8 memory[];\n"
    # As far as the executor is told, the kernel is one of kernels.cu, of float32.
    call = cuda.Call("k", (), cuda.Launch(blocks, threads, shared, 0), tensors)
    return execute(Ptx(memory + entry, {call.spelled: "k"}), call)


def words(*numbers: int) -> torch.Tensor:
    """64-bit words, in a tensor that passes for one of float32."""
    return torch.from_numpy(np.array(numbers, np.uint64).view(np.float32).copy())


NAN, INF = math.nan, math.inf
THIRD = struct.unpack("f", struct.pack("f", 1 / 3))[0]
# instruction, types of its sources and of the result as `struct` names them, sources, result
INSTRUCTIONS = [
    ("add.s32", "ii>i", (2**31 - 1, 1), -(2**31)),
    ("sub.s64", "qq>q", (3, 5), -2),
    ("mul.lo.s32", "ii>i", (65537, 65537), 131073),
    ("mul.wide.s32", "ii>q", (-(2**31), 4), -(2**33)),
    ("mul.wide.u32", "II>Q", (2**31, 4), 2**33),
    ("mul.hi.u32", "II>I", (2**31, 6), 3),
    ("mad.lo.s32", "iii>i", (-3, 5, 7), -8),
    ("mad.wide.s32", "iiq>q", (-3, 5, 2**40), 2**40 - 15),
    ("div.s32", "ii>i", (-7, 2), -3),
    ("div.u32", "II>I", (2**32 - 1, 2), 2**31 - 1),
    ("rem.s32", "ii>i", (-7, 2), -1),
    ("neg.s32", "i>i", (-(2**31),), -(2**31)),
    ("min.s64", "qq>q", (-1, 1), -1),
    ("min.u64", "QQ>Q", (2**64 - 1, 1), 1),
    ("max.s32", "ii>i", (-1, 1), 1),
    ("and.b32", "II>I", (12, 10), 8),
    ("or.b32", "II>I", (12, 10), 14),
    ("xor.b64", "QQ>Q", (12, 10), 6),
    ("not.b32", "I>I", (0,), 2**32 - 1),
    ("shl.b32", "II>I", (1, 31), 2**31),
    ("shl.b32", "II>I", (1, 32), 0),
    ("shr.u32", "II>I", (2**31, 31), 1),
    ("shr.u64", "QI>Q", (2**63, 64), 0),
    ("shr.s32", "iI>i", (-8, 1), -4),
    ("shr.s32", "iI>i", (-8, 99), -1),
    ("bfi.b64", "QQII>Q", (5, 2**40 + 1, 1, 63), 11),
    ("bfi.b32", "IIII>I", (255, 0, 8, 4), 0xF00),
    ("add.f32", "ff>f", (1e8, 1), 1e8),
    ("fma.rn.f32", "fff>f", (1 + 2**-12, 1 - 2**-12, -1), -(2**-24)),
    ("div.rn.f32", "ff>f", (1, 3), THIRD),
    ("rcp.rn.f64", "d>d", (3,), 1 / 3),
    ("abs.f32", "f>f", (-INF,), INF),
    ("mul.f64", "dd>d", (INF, 0), NAN),
    ("cvt.s64.s32", "i>q", (-5,), -5),
    ("cvt.u64.u32", "I>Q", (2**32 - 5,), 2**32 - 5),
    ("cvt.u32.u64", "Q>I", (2**40 + 3,), 3),
    ("cvt.rn.f32.s64", "q>f", (2**24 + 1,), 2**24),
    ("cvt.rn.f64.s32", "i>d", (-7,), -7),
    ("cvt.rn.f32.f64", "d>f", (1 / 3,), THIRD),
    ("cvt.f64.f32", "f>d", (THIRD,), THIRD),
    ("cvt.f32.f16", "e>f", (-1.5,), -1.5),
    ("cvt.rn.f16.f32", "f>e", (1 + 2**-11,), 1),  # half-way: to the even one
    ("cvt.rn.f16.f32", "f>e", (1 + 3 * 2**-11,), 1 + 2**-9),
    ("cvt.rn.f16.f32", "f>e", (1e6,), INF),
    ("cvt.f32.bf16", "H>f", (0xBFC0,), -1.5),
    ("cvt.rn.bf16.f32", "f>H", (1 + 2**-8,), 0x3F80),
    ("cvt.rn.f16x2.f32", "ff>I", (1, -2), 0x3C00C000),
    ("cvt.rn.bf16x2.f32", "ff>I", (1, -2), 0x3F80C000),
]


def bits(kind: str, number: float) -> int:
    return int.from_bytes(struct.pack(f"<{kind}", number), "little")


def loads(kinds: str) -> str:
    """The words of %rd90 into %rd0, %rd1, ..."""
    return "".join(f"ld.global.b64 %rd{k}, [%rd90+{8 * k}];\n" for k in range(len(kinds)))


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: f"{row[0]}-{row[3]}")
def test_an_instruction_computes_what_the_manual_says(row):
    name, types, sources, expected = row
    kinds, kind = types.split(">")
    x, out = words(*map(bits, kinds, sources)), words(0)
    operands = ", ".join(f"%rd{k}" for k in range(len(kinds)))
    body = f"{loads(kinds)}{name} %rd10, {operands};\nst.global.b64 [%rd91], %rd10;"
    assert run_by_hand(body, x, out, threads=1).faults == {}
    (got,) = struct.unpack(f"<{kind}", out.numpy().tobytes()[: struct.calcsize(kind)])
    assert got == expected or (math.isnan(got) and math.isnan(expected))


# comparison, type, a, b, whether it holds
COMPARISONS = [
    ("lt.s32", "i", -1, 1, True),
    ("lt.u32", "I", 2**32 - 1, 1, False),
    ("ge.s64", "q", -1, -1, True),
    ("ne.s64", "q", 2**40, 0, True),
    ("eq.b32", "I", 7, 7, True),
    ("le.f32", "f", 1, NAN, False),
    ("neu.f32", "f", NAN, NAN, True),
    ("eq.f64", "d", NAN, NAN, False),
    ("eq.f32", "f", 0, -0.0, True),
]


@pytest.mark.parametrize("row", COMPARISONS, ids=lambda row: f"{row[0]}-{row[4]}")
def test_a_comparison_chooses(row):
    name, kind, a, b, holds = row
    out = words(0)
    body = (
        f"{loads('ab')}setp.{name} %p1, %rd0, %rd1;\nselp.b64 %rd2, 5, 7, %p1;\n"
        "not.pred %p2, %p1;\n@%p2 add.s64 %rd2, %rd2, 10;\nst.global.b64 [%rd91], %rd2;"
    )
    assert run_by_hand(body, words(bits(kind, a), bits(kind, b)), out, threads=1).faults == {}
    assert out.view(torch.int64).item() == (5 if holds else 17)


def test_halves_of_a_register_are_taken_apart_and_put_together():
    out = words(0)
    body = (
        f"{loads('a')}mov.b64 {{%r1, %r2}}, %rd0;\nmov.b64 %rd1, {{%r2, %r1}};\n"
        "mov.b32 {%rs1, _}, %r1;\nst.global.u64 [%rd91], %rd1;\nst.global.u16 [%rd91+6], %rs1;"
    )
    assert run_by_hand(body, words(0x1111222233334444), out, threads=1).faults == {}
    assert out.view(torch.int64).item() == 0x4444444411112222


TID = "mov.u32 %r1, %tid.x;\ncvt.u64.u32 %rd1, %r1;\n"
# what: (statements, threads, shared bytes, the fault)
WRONG = {
    "beyond_the_tensor": ("st.global.u32 [%rd91+128], 1;", 1, 0, OUTSIDE),
    "before_the_tensor": ("ld.global.u32 %r2, [%rd90+-4];", 1, 0, OUTSIDE),
    "across_its_end": ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd90+120];", 1, 0, OUTSIDE),
    "beyond_shared_memory": ("st.shared.u32 [memory+64], 1;", 1, 64, OUTSIDE),
    "between_words": ("ld.global.u32 %r2, [%rd90+2];", 1, 0, MISALIGNED),
    "into_an_input": ("st.global.u32 [%rd90], 1;", 1, 0, READ_ONLY),
    "never_set": ("add.s32 %r2, %r3, 1;", 1, 0, UNDEFINED),
    "never_stored": ("ld.shared.u32 %r2, [memory];", 1, 64, UNWRITTEN),
    "all_at_one_place": ("st.global.u32 [%rd91], %r1;", 32, 0, RACE),
    "one_reads_what_another_stores": (
        "st.shared.u32 [memory], 1;\nld.shared.u32 %r2, [memory];", 64, 64, RACE,
    ),
    "a_barrier_behind_an_end": (
        "setp.gt.s32 %p1, %r1, 40;\n@%p1 ret;\nbar.sync 0;", 64, 0, DIVERGED,
    ),
    "two_barriers_for_one": (
        "setp.gt.s32 %p1, %r1, 31;\n@%p1 bra $far;\nbar.sync 0;\nret;\n$far:\nbar.sync 0;",
        64, 0, DIVERGED,
    ),
    "for_ever": ("$again:\nbra $again;", 1, 0, ENDLESS),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_kernel_must_not_do_is_named_with_its_line(name):
    body, threads, shared, fault = WRONG[name]
    x, out = torch.zeros(32), torch.zeros(32)
    run = run_by_hand(TID + body, x, out, threads=threads, shared=shared)
    assert set(run.faults) == {fault}
    assert f"k: {fault}: line " in run.first[0] and "block 0, thread " in run.first[0]
    assert not x.any()  # what is not allowed does not happen


def test_a_barrier_keeps_threads_apart():
    body = (
        f"{TID}shl.b32 %r2, %r1, 2;\nst.shared.u32 [%r2], %r1;\nbar.sync 0;\n"
        "xor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3];\ncvt.u64.u32 %rd2, %r2;\n"
        "add.s64 %rd3, %rd91, %rd2;\nst.global.u32 [%rd3], %r4;"
    )
    out = torch.zeros(64)
    assert run_by_hand(body, torch.zeros(1), out, threads=64, shared=256).faults == {}
    assert out.view(torch.int32).tolist() == [k ^ 32 for k in range(64)]
    unkept = run_by_hand(
        body.replace("bar.sync 0;", ""), torch.zeros(1), out, threads=64, shared=256
    )
    assert set(unkept.faults) == {RACE, UNWRITTEN}


def test_shared_arrays_of_fixed_size_lie_beside_one_another():
    arrays = ".shared .align 4 .b8 first[4];\n.shared .align 4 .b8 second[4];\n"
    body = (
        f"{arrays}{TID}st.shared.u32 [first], 5;\nst.shared.u32 [second], 7;\n"
        "ld.shared.u32 %r2, [first];\nst.global.u32 [%rd91], %r2;"
    )
    out = torch.zeros(1)
    assert run_by_hand(body, torch.zeros(1), out, threads=1).faults == {}
    assert out.view(torch.int32).item() == 5


def test_lanes_that_part_meet_again():
    body = (
        f"{TID}mov.u32 %r2, 0;\nmov.u32 %r3, 0;\n"
        "$more:\nadd.s32 %r3, %r3, %r1;\nadd.s32 %r2, %r2, 1;\nsetp.lt.s32 %p1, %r2, %r1;\n"
        "@%p1 bra $more;\nshl.b64 %rd2, %rd1, 2;\nadd.s64 %rd3, %rd91, %rd2;\n"
        "st.global.u32 [%rd3], %r3;"
    )
    out = torch.zeros(32)
    run = run_by_hand(body, torch.zeros(1), out)
    assert out.view(torch.int32).tolist() == [k * max(k, 1) for k in range(32)]
    # 31 rounds of four for the longest lane, and ten statements besides, not one per lane.
    assert run.counts.instructions == 31 * 4 + 10
    assert run.counts.global_store.requests == 1


# bytes between the lanes' words: sectors of 32 bytes, waves of shared memory
PATTERNS = {0: (1, 1), 4: (4, 1), 8: (8, 2), 32: (32, 8), 128: (32, 32), 132: (32, 1)}


@pytest.mark.parametrize("stride", PATTERNS)
def test_traffic_is_counted_as_the_hardware_moves_it(stride):
    sectors, waves = PATTERNS[stride]
    body = (
        f"{TID}mul.lo.s32 %r2, %r1, {stride};\ncvt.u64.u32 %rd2, %r2;\n"
        "add.s64 %rd3, %rd90, %rd2;\nld.global.nc.f32 %f1, [%rd3];\n"
        "st.shared.f32 [%r2], %f1;\n"
    )
    memory = torch.zeros(1024 + 64 + 8)
    first = -memory.data_ptr() % 32 // 4  # sectors begin at multiples of 32 bytes
    run = run_by_hand(body, memory[first : first + 1024 + 64], memory, shared=4400)
    assert run.counts.global_load.moved == sectors == run.counts.loaded_by_blocks
    assert run.counts.shared_store.moved == waves
    assert (run.counts.global_load.fewest, run.counts.shared_store.fewest) == (4, 1)


# --- what cannot be run is refused ------------------------------------------------------------

UNKNOWN = {
    "an_instruction": "sin.approx.f32 %f1, %f2;",
    "a_mode": "add.rz.f32 %f1, %f2, %f2;",
    "a_type": "add.f16 %rs1, %rs2, %rs2;",
    "an_atomic": "atom.global.add.f32 %f1, [%rd91], 0f3F800000;",
    "another_barrier": "bar.sync 1;",
    "local_memory": ".local .align 4 .b8 depot[8];",
    "a_call": "call.uni (retval0), f, (param0);",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_executor_does_not_know_is_named_with_its_line(name):
    statement = UNKNOWN[name].rstrip(";")
    with pytest.raises(InputError, match="PTX: expected instructions that the execut") as error:
        run_by_hand(f"mov.u32 %r1, 1;\n{UNKNOWN[name]}", torch.zeros(1), torch.zeros(1))
    assert f"got '{statement}' in line 10, kernel k" in str(error.value)


def test_a_call_that_does_not_fit_the_kernel_is_refused():
    call = cuda.Call("k", (), cuda.Launch(1, 1, 0, 0), (torch.zeros(1), 3))
    ptx = Ptx(".entry k(\n.param .u64 k_param_0\n)\n{\nret;\n}\n", {call.spelled: "k"})
    with pytest.raises(InputError, match="call: expected 1 arguments for k, got 2"):
        execute(ptx, call)
    with pytest.raises(
        InputError, match="symbol: expected a kernel of the PTX text, got other"
    ):
        execute(Ptx(ptx.text, {call.spelled: "other"}), call)


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert cli.main(["check-ops", "--device", "ptx"]) == 2
    shown = capsys.readouterr().err
    assert "NVRTC: expected cuda-bindings with NVIDIA's compiler" in shown
    assert 'pip install "tensormask-edu[cuda]"' in shown


def test_without_a_header_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda, "_header_candidates", list)
    with pytest.raises(InputError, match="cuda_fp16.h not found: install nvidia-cuda-runtime"):
        text.kernels(torch.float16)


def test_without_a_compiler_the_error_says_so(monkeypatch):
    execute_module = sys.modules[execute.__module__]
    execute_module._library.cache_clear()
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    with pytest.raises(InputError, match="compiler: expected a C.. compiler"):
        execute_module._library()


@needs_nvrtc
def test_nvrtc_says_what_is_wrong_with_a_source():
    with pytest.raises(InputError, match="CompileProgram: NVRTC_ERROR_COMPILATION.*undefined"):
        text.compiled("__global__ void k() { nothing(); }", [])


# --- the estimate -----------------------------------------------------------------------------


def test_the_slowest_part_of_the_machine_decides():
    parts = estimate.Estimate(hbm=1.0, l2=2.0, issue=0.5, l1=0.1, latency=0.2)
    assert (parts.bound, parts.share) == ("l2", 0.5)
    x, out = torch.zeros(1024), torch.zeros(1024)
    body = (
        f"{TID}shl.b64 %rd2, %rd1, 2;\nadd.s64 %rd3, %rd91, %rd2;\n"
        "st.global.f32 [%rd3], 0f00000000;\nld.global.f32 %f1, [%rd3];"
    )
    run = run_by_hand(body, x, out)
    call = cuda.Call("k", (), cuda.Launch(8, 32, 0, 0), (x, out))
    card = estimate.Card(multiprocessors=2, cycles=1e3, hbm_bytes=1e6, l2_bytes=1e5)
    found = estimate.estimate(
        estimate.costs(call, run, every=8), card
    )  # of eight blocks one ran
    assert found.hbm == 2 * 4096 / 1e6
    assert found.l2 == pytest.approx(8 * (4 + 4) * 32 / 1e5)
    assert found.issue == pytest.approx(8 * run.counts.instructions / (4 * 2 * 1e3))
    assert found.l1 == pytest.approx(8 * (4 + 4) / 4 / (2 * 1e3))
    # Eight blocks of a warp, which loads once; a multiprocessor holds 32 blocks.
    assert found.latency == pytest.approx(8 * 480 / (2 * 1e3 * 32))


@pytest.mark.parametrize(
    "threads, shared_bytes, registers, warps",
    [
        (1024, 0, 0, 64),
        (256, 0, 32, 64),
        (256, 0, 128, 16),  # four warps a scheduler
        (384, 0, 168, 12),
        (384, 0, 176, 0),  # two warps a scheduler: such a block does not start
        (33, 0, 255, 8),  # of two warps each
        (256, 40 << 10, 32, 40),
        (32, 32329, 32, 6),  # shared memory comes by the 128 bytes
        (32, 0, 16, 32),  # blocks, no more
    ],
)
def test_registers_shared_memory_and_blocks_say_how_many_warps_are_held(
    threads, shared_bytes, registers, warps
):
    call = cuda.Call("k", (), cuda.Launch(1000, threads, shared_bytes, 0), ())
    assert estimate.warps_held(call, registers) == warps
