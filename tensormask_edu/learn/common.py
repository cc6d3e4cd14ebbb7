"""The mistakes that are made everywhere: rules that rewrite the source of any exercise.

A rule yields the source in which its pattern was replaced, or nothing where it does not occur.
The loops of an exercise are written so that the rules find them:

    v = i - (num_v - 1) // 2                       counted from the centre
    row = y + v                                    where it reads
    if 0 <= row < height and 0 <= column < width:  asked before it reads

next: learn/mutants.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

Function = Callable[..., Any]
Rule = Callable[[ast.Module], Iterator[ast.Module]]


# --- rules that rewrite a source ---------------------------------------------


class _Rewrite(ast.NodeTransformer):
    """Replaces the nodes for which `change` gives another; counts them."""

    def __init__(self, change: Callable[[ast.AST], ast.AST | None]) -> None:
        self.change, self.count = change, 0

    def visit(self, node: ast.AST) -> Any:
        """A node's replacement, else the node with its inside visited."""
        new = self.change(node)
        if new is None:
            return self.generic_visit(node)
        self.count += 1
        return new


def _where(change: Callable[[ast.AST], ast.AST | None]) -> Rule:
    """A rule that replaces nodes, all of them at once."""

    def rule(tree: ast.Module) -> Iterator[ast.Module]:
        rewrite = _Rewrite(change)
        new = rewrite.visit(tree)
        if rewrite.count:
            yield ast.fix_missing_locations(new)

    return rule


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


READS = re.compile(r"^(row|column|\w+_in)$")  # names of the places that are read


def _of_reads(change: Callable[[ast.expr], ast.AST | None]) -> Rule:
    """A rule for what is assigned to `row`, `column` and other places that are read."""

    def at_assignment(node: ast.AST) -> ast.AST | None:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            return None
        if not READS.match(node.targets[0].id):
            return None
        value = change(node.value)
        return value and ast.Assign(targets=node.targets, value=value)  # type: ignore[arg-type]

    return _where(at_assignment)


def _other_sign(value: ast.expr) -> ast.AST | None:
    other: dict[type, ast.operator] = {ast.Add: ast.Sub(), ast.Sub: ast.Add()}
    if isinstance(value, ast.BinOp) and type(value.op) in other:
        return ast.BinOp(value.left, other[type(value.op)], value.right)
    return None


def _one_further(value: ast.expr) -> ast.AST | None:
    return ast.BinOp(value, ast.Add(), ast.Constant(1))


def _one_less_far(value: ast.expr) -> ast.AST | None:
    return ast.BinOp(value, ast.Sub(), ast.Constant(1))


def _partners(pairs: Mapping[str, str]) -> Callable[[ast.AST], ast.AST | None]:
    both = dict(pairs) | {new: old for old, new in pairs.items()}

    def change(node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Name) and node.id in both and isinstance(node.ctx, ast.Load):
            return ast.Name(both[node.id], ast.Load())
        return None

    return change


def _v_with_x(value: ast.expr) -> ast.AST | None:
    rewrite = _Rewrite(_partners({"v": "u"}))
    new: ast.AST = rewrite.visit(ast.parse(ast.unparse(value), mode="eval").body)
    return new if rewrite.count else None


def _h_with_w(tree: ast.Module) -> Iterator[ast.Module]:
    """Heights and widths change places where a place is compared with them, or at first."""
    before = ast.unparse(tree)

    def change(node: ast.AST) -> ast.AST | None:
        rewrite = _Rewrite(_partners({"height": "width"}))
        if isinstance(node, ast.Compare):
            new: ast.AST = rewrite.generic_visit(node)
            return new if rewrite.count else None
        return None

    yield from _where(change)(tree)
    yield from _unpacked("height", "width")(ast.parse(before))


def _unpacked(one: str, other: str) -> Rule:
    """Two names change places where a shape is unpacked."""
    swap = {one: other, other: one}

    def change(node: ast.AST) -> ast.AST | None:
        is_name = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if is_name and node.id in swap:  # type: ignore[attr-defined]
            return ast.Name(swap[node.id], ast.Store())  # type: ignore[attr-defined]
        return None

    return _where(change)


def _from_the_corner(node: ast.AST) -> ast.AST | None:
    text = ast.unparse(node) if isinstance(node, ast.BinOp) else ""
    centred = re.fullmatch(r"(\w+) - \(\w+ - 1\) // 2", text)
    return _expression(centred[1]) if centred else None


def _half_too_far(node: ast.AST) -> ast.AST | None:
    text = ast.unparse(node) if isinstance(node, ast.BinOp) else ""
    half = re.fullmatch(r"\((\w+) - 1\) // 2", text)
    return _expression(f"{half[1]} // 2 + 1") if half else None


def _pad(value: float) -> Rule:
    def change(node: ast.AST) -> ast.AST | None:
        is_pad = isinstance(node, ast.Name) and node.id == "pad_value"
        return ast.Constant(value) if is_pad else None

    return _where(change)


def _asked(node: ast.AST) -> ast.Compare | None:
    """The comparison `0 <= place < extent`."""
    is_chain = isinstance(node, ast.Compare) and len(node.ops) == 2
    return node if is_chain and ast.unparse(node).startswith("0 <= ") else None  # type: ignore


def _not_below(node: ast.AST) -> ast.AST | None:
    """Asks only for the far side: a negative index wraps."""
    if (chain := _asked(node)) is None:
        return None
    return ast.Compare(chain.comparators[0], chain.ops[1:], chain.comparators[1:])


def _not_above(node: ast.AST) -> ast.AST | None:
    """Asks only for the near side: an index beyond the end raises."""
    if (chain := _asked(node)) is None:
        return None
    return ast.Compare(chain.left, chain.ops[:1], chain.comparators[:1])


def _never_asked(node: ast.AST) -> ast.AST | None:
    return None if _asked(node) is None else ast.Constant(True)


def _instead_of_asking(form: str) -> Rule:
    """Every place that is read is made to lie inside: `form` of its name and extent."""

    def change(node: ast.AST) -> ast.AST | None:
        if not isinstance(node, ast.If):
            return None
        chains = [chain for part in ast.walk(node.test) if (chain := _asked(part))]
        asked = [tuple(ast.unparse(each) for each in c.comparators) for c in chains]
        inside = {place: form.format(place=place, extent=extent) for place, extent in asked}

        def read(name: ast.AST) -> ast.AST | None:
            is_place = isinstance(name, ast.Name) and name.id in inside
            return _expression(inside[name.id]) if is_place else None  # type: ignore

        # In place of the name, which keeps its value: weights may be made of it too.
        body = [_Rewrite(read).visit(line) for line in node.body]
        return ast.If(ast.Constant(True), body, [])

    def rule(tree: ast.Module) -> Iterator[ast.Module]:
        if any(_asked(node) for node in ast.walk(tree)):
            yield from _where(change)(tree)

    return rule


def _one_round_less(node: ast.AST) -> ast.AST | None:
    """`range(n)` ends one early, `np.ndindex(n, ...)` in each of its numbers."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    if name not in ("range", "np.ndindex"):
        return None
    assert isinstance(node, ast.Call)
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return None
    shorter: list[ast.expr] = [
        ast.BinOp(argument, ast.Sub(), ast.Constant(1)) for argument in node.args
    ]
    return ast.Call(node.func, shorter, [])


def _early_return(tree: ast.Module) -> Iterator[ast.Module]:
    """The `return` stands inside a loop: its first round is the last."""
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef | ast.ClassDef)
    if not function.body or not isinstance(function.body[-1], ast.Return):
        return
    loops = sum(isinstance(node, ast.For) for node in ast.walk(function))
    for number in range(loops):
        copy = ast.parse(ast.unparse(tree))
        loop = [node for node in ast.walk(copy) if isinstance(node, ast.For)][number]
        loop.body.append(copy.body[0].body[-1])  # type: ignore[attr-defined]
        yield ast.fix_missing_locations(copy)


def _in_place(tree: ast.Module) -> Iterator[ast.Module]:
    """The result is written into the first argument."""
    (function,) = tree.body
    if not isinstance(function, ast.FunctionDef) or not function.args.args:
        return
    first = function.args.args[0].arg

    def change(node: ast.AST) -> ast.AST | None:
        makes = isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "np.full",
            "np.zeros",
            "np.empty",
        )
        is_same_shape = makes and f"{first}.shape" in ast.unparse(node)
        return ast.Name(first, ast.Load()) if is_same_shape else None

    yield from _where(change)(tree)


def _called(name: str, other: str) -> Callable[[ast.AST], ast.AST | None]:
    def change(node: ast.AST) -> ast.AST | None:
        is_it = isinstance(node, ast.Call) and ast.unparse(node.func) == name
        return ast.Call(_expression(other), node.args, []) if is_it else None  # type: ignore

    return change


# name -> rule; the sentences stand in checks.md. An earlier one is preferred.
COMMON: dict[str, Rule] = {
    "another sign": _of_reads(_other_sign),
    "v with x": _of_reads(_v_with_x),
    "from the corner": _where(_from_the_corner),
    "no question below": _where(_not_below),
    "no question above": _where(_not_above),
    "no question": _where(_never_asked),
    "clipped": _instead_of_asking("min(max({place}, 0), {extent} - 1)"),
    "wrapped": _instead_of_asking("{place} % {extent}"),
    "H with W": _h_with_w,
    "V with U": _unpacked("num_v", "num_u"),
    "zero outside": _pad(0),
    "always -6": _pad(-6.0),
    "one too far": _of_reads(_one_further),
    "one short": _of_reads(_one_less_far),
    "another centre": _where(_half_too_far),
    "one round less": _where(_one_round_less),
    "early return": _early_return,
    "in place": _in_place,
    "rounded to zero": _where(_called("math.floor", "int")),
    "rounded up": _where(_called("math.floor", "math.ceil")),
    "the ceiling as floor": _where(_called("math.ceil", "math.floor")),
}


USUAL = {
    "another sign",
    "v with x",
    "from the corner",
    "no question below",
    "wrapped",
    "zero outside",
    "always -6",
}


# --- what is done to a right result ------------------------------------------


def _whole_numbers(function: Function) -> Function:
    def run(*args: Any) -> Any:
        right = function(*args)
        if isinstance(right, Tensor):
            return right.trunc()
        return np.trunc(right) if isinstance(right, np.ndarray) else right

    return run


def _first_image_only(function: Function) -> Function:
    """The first image is right, the others stay as `np.full` made them."""

    def run(*args: Any) -> Any:
        right = function(*args)
        if isinstance(right, np.ndarray) and right.ndim == 5:
            right = right.copy()
            right[1:] = args[-1]
        return right

    return run


def _first_image_for_all(function: Function) -> Function:
    def run(*args: Any) -> Any:
        right = function(*args)
        if isinstance(right, np.ndarray) and right.ndim == 5 and len(right):
            right = np.broadcast_to(right[:1], right.shape)
        return right

    return run


def _given_back(function: Function) -> Function:
    """Only for what is an array: a number given back is another kind of thing."""

    def run(*args: Any) -> Any:
        is_array = bool(args) and isinstance(args[0], np.ndarray | Tensor)
        return args[0] if is_array else function(*args)

    return run


def _of_numbers(change: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """What is done to a result of numbers; any other is left as it is."""

    def wrap(function: Function) -> Function:
        def run(*args: Any) -> Any:
            right = function(*args)
            is_list = isinstance(right, list | tuple) and all(map(np.isscalar, right))
            if is_list or isinstance(right, bool | int | float):
                right = np.array(right)  # but no pairs: their indices are whole numbers
            return change(right) if isinstance(right, np.ndarray | Tensor) else right

        return run

    return wrap


def _backwards(right: Any) -> Any:
    return right if right.ndim == 0 else right[list(range(len(right)))[::-1]]


def _opposite(right: Any) -> Any:
    return ~right if "bool" in str(right.dtype) else -right


OF_RESULTS: dict[str, Callable[[Function], Function]] = {
    "whole numbers": _whole_numbers,
    "first image only": _first_image_only,
    "first image for all": _first_image_for_all,
    "given back": _given_back,
    "backwards": _of_numbers(_backwards),
    "the opposite": _of_numbers(_opposite),
    "one more": _of_numbers(lambda right: right + 1),
    "one less": _of_numbers(lambda right: right - 1),
    "rounded": _of_numbers(lambda right: right.round()),
}
