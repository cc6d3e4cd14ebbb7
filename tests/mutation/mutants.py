"""Deliberate faults: every small change of a source file that a test should notice.

Python is changed node by node of its syntax tree, C++ word by word. Messages of errors,
annotations, docstrings and asserts stay as they are; `zip(strict=True)` is one.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
# Names that mean the opposite, or another precision
OPPOSITES = (
    "min max", "amin amax", "minimum maximum", "argmin argmax", "floor ceil", "any all",
    "zeros ones", "new_zeros new_ones", "zeros_like ones_like", "sum mean", "height width",
)  # fmt: skip
NAMES = {a: b for pair in OPPOSITES for a, b in (pair.split(), pair.split()[::-1])}
NAMES |= {"round": "int", "float32": "float64", "float64": "float32", "int64": "int32"}
NAMES |= {"float": "double", "double": "float", "long": "int"}
CALLED = {"float", "double", "long", "round"}  # changed as methods or calls alone
BUILTINS = {"min", "max", "any", "all", "height", "width"}  # not attributes only
PARTS = (ast.Compare, ast.BinOp, ast.BoolOp, ast.UnaryOp)
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)


class Mutant(NamedTuple):
    """One change of one file.

    line, column: where it stands. code: that line, stripped. start, end: the bytes replaced.
    lines: the first and last line that a test must have run to notice.
    """

    path: str
    line: int
    column: int
    operator: str
    before: str
    after: str
    code: str
    start: int
    end: int
    lines: tuple[int, int]

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        data = text.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()


def mutants(path: str, text: str) -> list[Mutant]:
    """All of a file's, in the order of its lines."""
    found = _Python(path, text).found if path.endswith(".py") else list(_words(path, text))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.after))


# --- Python -----------------------------------------------------------------------------------


class _Python(ast.NodeVisitor):
    """Walks a module's tree and collects its mutants in `found`."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.data = path, text.encode()
        self.starts = [0]  # the byte at which each line begins
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.lines = (1, 1)  # of the statement at hand
        self.visit(ast.parse(text))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, SKIPPED):
            return
        before = self.lines
        if isinstance(node, ast.stmt):
            self.lines = _lines_of(node)
        for operator, new in _changes(node):
            self.add(node, operator, new)
        super().visit(node)
        self.lines = before

    def add(self, node: ast.AST, operator: str, new: ast.AST | str) -> None:
        start, end = (
            self.starts[line - 1] + column
            for line, column in (
                (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
            )
        )  # fmt: skip
        before = self.data[start:end].decode()
        after = new if isinstance(new, str) else ast.unparse(new)
        if isinstance(new, ast.Tuple):
            after = ", ".join(map(ast.unparse, new.elts))  # an index may hold slices
        if isinstance(new, PARTS) or before.startswith("(") and isinstance(new, ast.Tuple):
            after = f"({after})"
        line = self.data[self.starts[node.lineno - 1] :].split(b"\n", 1)[0].decode().strip()
        place = (node.lineno, node.col_offset)
        self.found.append(
            Mutant(self.path, *place, operator, before, after, line, start, end, self.lines)
        )

    # What is not looked into, beside SKIPPED

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default:
                self.visit(default)
        self.visit_body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_body(node)

    def visit_Module(self, node: ast.Module) -> None:
        self.visit_body(node)

    def visit_body(self, node: ast.FunctionDef | ast.ClassDef | ast.Module) -> None:
        for statement in node.body:
            if not is_text(statement):
                self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):  # turned round anyway
            self.add(node.test, "condition", ast.UnaryOp(ast.Not(), node.test))
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) not in {"bad_input", "require", "InputError", "cast"}:
            self.generic_visit(node)


def is_text(statement: ast.AST) -> bool:
    """Whether a statement is a docstring, or would be one at the beginning."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _lines_of(node: ast.stmt) -> tuple[int, int]:
    """A statement's lines; a block's head; a function's body, where its defaults matter."""
    last = node.end_lineno or node.lineno
    body = getattr(node, "body", None)
    if isinstance(node, ast.FunctionDef):
        return node.body[0].lineno, last
    return (node.lineno, max(node.lineno, body[0].lineno - 1)) if body else (node.lineno, last)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    """(operator, what stands there instead) of one node."""
    for change in (_operators, _values, _calls, _statements):
        yield from change(node)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _operators(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            before, after = node.ops[:k], node.ops[k + 1 :]
            for other in COMPARISONS[type(op)]:
                yield "comparison", _with(node, ops=[*before, other(), *after])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", _with(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield "sign", _with(ast.Expr(), value=node.operand)
    elif isinstance(node, ast.BoolOp):
        yield "boolean", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.IfExp):
        yield "condition", _with(node, body=node.orelse, orelse=node.body)


def _values(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "boolean", str(not node.value)
        elif isinstance(node.value, int | float):
            yield "constant", repr(node.value + 1)
            yield "constant", repr(node.value - 1) if node.value >= 1 else f"({node.value - 1})"
    elif isinstance(node, ast.Slice):
        for end in ("lower", "upper", "step"):
            if getattr(node, end) is not None:
                yield "slice", _with(node, **{end: None})
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        yield from (("order", _with(node, elts=elts)) for elts in _swaps(node.elts))


def _swaps(items: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """The list with two neighbours exchanged, where that is another list."""
    for k, (a, b) in enumerate(zip(items, items[1:], strict=False)):
        plain = not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred)
        if plain and ast.dump(a) != ast.dump(b):
            yield [*items[:k], b, a, *items[k + 2 :]]


def _calls(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    if isinstance(node, ast.Attribute) and node.attr in NAMES.keys() - CALLED:
        yield "name", _with(node, attr=NAMES[node.attr])
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id in BUILTINS:
            yield "name", NAMES[node.id]
    elif isinstance(node, ast.Call):
        yield from (("order", _with(node, args=args)) for args in _swaps(node.args))
        method = isinstance(node.func, ast.Attribute) and node.func.attr in CALLED
        if method and not node.args:
            yield "name", _with(node, func=_with(node.func, attr=NAMES[node.func.attr]))
        elif isinstance(node.func, ast.Name) and node.func.id == "round":
            yield "name", _with(node, func=ast.Name("int"))
        for k, word in enumerate(node.keywords):  # clamp(min=0)
            if word.arg in {"min", "max"}:
                other = ast.keyword(NAMES[word.arg], word.value)
                yield (
                    "name",
                    _with(node, keywords=[*node.keywords[:k], other, *node.keywords[k + 1 :]]),
                )


def _statements(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    if isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        yield "return", "return None"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement", "pass"
    elif isinstance(node, ast.AugAssign):
        yield "statement", "pass"
    elif isinstance(node, ast.Continue | ast.Break):
        yield "statement", "break" if isinstance(node, ast.Continue) else "continue"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


# --- C++ --------------------------------------------------------------------------------------

# Operators stand between spaces in the house style, template brackets do not.
WORDS = {
    "comparison": {" < ": (" <= ", " >= "), " <= ": (" < ", " > "), " > ": (" >= ", " <= "),
                   " >= ": (" > ", " < "), " == ": (" != ",), " != ": (" == ",)},
    "arithmetic": {" + ": (" - ",), " - ": (" + ",), " * ": (" + ",), " / ": (" * ",),
                   " % ": (" / ",), " += ": (" -= ",), " << ": (" >> ",), " >> ": (" << ",),
                   " & ": (" | ",), " | ": (" & ",)},
    "boolean": {" && ": (" || ",), " || ": (" && ",), "true": ("false",), "false": ("true",)},
}  # fmt: skip
OTHER = {word: (name, new) for name, words in WORDS.items() for word, new in words.items()}
TOKEN = re.compile("|".join([*map(re.escape, OTHER), r"(?<![\w.#])\d+(?![\w.])"]))


def _words(path: str, text: str) -> Iterator[Mutant]:
    """Changes of words, outside comments, the preprocessor and what only a compiler sees."""
    offset = 0
    for number, whole in enumerate(text.splitlines(keepends=True), start=1):
        code = whole.split("//")[0]
        skipped = ("#", "static_assert", "template", "constexpr bool")
        if not code.lstrip().startswith(skipped):
            for found in TOKEN.finditer(code):
                word = found.group()
                operator, others = OTHER.get(word, ("constant", ()))
                for after in others or (str(int(word) + 1), str(int(word) - 1)):
                    start = offset + len(code[: found.start()].encode())
                    yield Mutant(
                        path, number, found.start(), operator, word, after, code.strip(),
                        start, start + len(word.encode()), (number, number),
                    )  # fmt: skip
        offset += len(whole.encode())
