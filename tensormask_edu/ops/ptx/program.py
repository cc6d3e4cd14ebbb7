"""A kernel's PTX as rows of numbers: what the executor runs. What it does not know is refused.

    add.s32 %r3, %r1, 8;     ->     [STEP, 17, -1, 0, 0, 5, 3, 6, 0, ...]

A row: the flow, the instruction's number in the executor's table, guard, whether the guard is
negated, a branch's target, then registers. Immediate values are registers that are filled
before the start, and so are parameters, the thread's number and its block's.

next: ops/ptx/execute.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ...base.errors import InputError, bad_input

OPERANDS = 8
STEP, BRANCH, RETURN, BARRIER = range(4)
FLOWS = {"bra": BRANCH, "bra.uni": BRANCH, "ret": RETURN, "exit": RETURN, "bar.sync": BARRIER}
# Registers that the executor fills, in its order.
SPECIAL = ("%tid.x", "%ntid.x", "%ctaid.x", "%nctaid.x")
NOBODY = "_"  # where a result goes that nobody wants
# A statement's parts: (@guard) opcode operands
STATEMENT = re.compile(r"(?:@(!?)([%\w]+)\s+)?([\w.:]+)\s*(.*)")
SHARED = re.compile(r"\.shared\s+\.align\s+\d+\s+\.b8\s+([\w$]+)\[(\d*)\]")


@dataclass
class Program:
    """One kernel. texts: line and words of each row; parameters: their registers in order."""

    name: str
    rows: list[list[int]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    constants: dict[int, int] = field(default_factory=dict)  # register -> bits
    parameters: list[int] = field(default_factory=list)
    shared: dict[str, int] = field(default_factory=dict)  # array -> first byte
    shared_bytes: int = 0  # of arrays of fixed size; the one without a size comes behind


def read(text: str, symbol: str, number: Callable[[str], int]) -> Program:
    """The kernel `symbol` of a PTX text. number: an instruction's number, -1 if unknown.

    Raises InputError with line and words of what the executor does not know.
    """
    entry = re.search(rf"\.entry\s+{re.escape(symbol)}\s*\((.*?)\)(.*?)\n}}", text, re.S)
    if entry is None:
        raise bad_input("symbol", "a kernel of the PTX text", symbol)
    program = Program(symbol, registers={name: k for k, name in enumerate(SPECIAL)})
    _register(program, NOBODY)
    program.parameters = [
        _register(program, name) for name in re.findall(r"[\w$]+_param_\d+", entry[1])
    ]
    above = text[: text.index(".entry")]
    first_line = text[: entry.start(2)].count("\n") + 1
    statements = list(_statements(entry[2], first_line))
    _place_shared(program, above + "".join(f"{words};" for _, words in statements))
    labels: dict[str, int] = {}
    for line, words in statements:
        if words.endswith(":"):
            labels[words[:-1]] = len(program.rows)
        elif not words.startswith("."):
            _add(program, line, words, number)
        elif words.startswith(".local"):
            raise _unknown(words, line, symbol)
        elif words.startswith(".reg") and "<" not in words:  # of inline assembly, by name
            for name in _split(words)[2:]:
                _register(program, name)
    for row, (_, words) in zip(program.rows, program.texts, strict=True):
        if row[0] == BRANCH:
            row[4] = labels[words.split()[-1]]
    return program


def _statements(body: str, first_line: int) -> Iterator[tuple[int, str]]:
    """(line, words) of every label, directive and instruction."""
    for line, text in enumerate(body.split("\n"), start=first_line):
        for part in re.split(r";|(?<=:)\s", text.split("//")[0]):
            # Braces at the ends are scopes of inline assembly; inside they are vectors.
            if words := " ".join(re.sub(r"^[{}\s]+", "", part).split()):
                yield line, words


def _place_shared(program: Program, declared: str) -> None:
    unsized = []
    for name, size in SHARED.findall(declared):
        if size:
            program.shared[name] = program.shared_bytes
            program.shared_bytes += -(-int(size) // 16) * 16
        else:
            unsized.append(name)
    program.shared |= dict.fromkeys(unsized, program.shared_bytes)


def _add(program: Program, line: int, words: str, number: Callable[[str], int]) -> None:
    matched = STATEMENT.fullmatch(words)
    if matched is None:
        raise _unknown(words, line, program.name)
    negated, guard, opcode, rest = matched.groups()
    flow = FLOWS.get(opcode, STEP)
    operands, known = [], 0
    if flow == STEP:
        opcode, names = _named(opcode, _split(rest))
        known = number(opcode)
        try:
            operands = [_operand(program, name) for name in names]
        except InputError:
            known = -1
    # One barrier for all threads of a block; those with numbers or counts are others.
    if known < 0 or (flow == BARRIER and rest != "0") or len(operands) > OPERANDS:
        raise _unknown(words, line, program.name)
    guarded = [_register(program, guard) if guard else -1, int(negated == "!"), 0]
    padded = operands + [0] * (OPERANDS - len(operands))
    program.rows.append([flow, known, *guarded, *padded])
    program.texts.append((line, words))


def _unknown(words: str, line: int, kernel: str) -> InputError:
    got = f"'{words}' in line {line}, kernel {kernel}"
    return bad_input("PTX", "instructions that the executor knows", got)


def _named(opcode: str, operands: list[str]) -> tuple[str, list[str]]:
    """The name in the executor's table, and the operands without brackets and braces."""
    if opcode.startswith("ld.param."):
        return "mov.b64", [operands[0], operands[1].strip("[]")]
    if opcode.startswith(("ld.", "st.")):
        values, address = operands if opcode.startswith("ld.") else reversed(operands)
        base, _, offset = address.strip("[]").partition("+")
        return opcode, [base, f"+{offset or 0}", *_split(values.strip("{}"))]
    if opcode.startswith("mov.b") and operands[0].startswith("{"):
        return f"unpack.{opcode[4:]}", [*_split(operands[0].strip("{}")), operands[1]]
    if opcode.startswith("mov.b") and operands[1].startswith("{"):
        return f"pack.{opcode[4:]}", [operands[0], *_split(operands[1].strip("{}"))]
    return opcode, operands


def _split(operands: str) -> list[str]:
    """At commas outside braces."""
    return re.findall(r"\{[^}]*\}|[^,\s{}]+", operands)


def _operand(program: Program, name: str) -> int:
    """The number of a register, of a constant's register; an offset as it is."""
    if name in program.registers:
        return program.registers[name]
    if re.fullmatch(r"%[a-z]+\d+", name):  # declared by kind and count
        return _register(program, name)
    if name.startswith("+"):
        return int(name[1:])
    if name in program.shared:
        bits = program.shared[name]
    elif re.fullmatch(r"0[fFdD][0-9a-fA-F]{8,16}", name):  # floats by their bits
        bits = int(name[2:], 16)
    elif re.fullmatch(r"-?\d+|0[xX][0-9a-fA-F]+U?", name):
        bits = int(name.rstrip("U"), 0)
    else:
        raise bad_input("operand", "a register or a number", name)
    register = _register(program, name)
    program.constants[register] = bits
    return register


def _register(program: Program, name: str) -> int:
    return program.registers.setdefault(name, len(program.registers))
