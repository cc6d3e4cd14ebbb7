"""An nn.Module to write: parameters, output and gradients are compared.

next: learn/kinds/words.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..checks import Verdict
from ..mutants import mistakes, source_of
from ..texts import Texts
from ..trials import TOLERANCE, Failure, says
from .registry import declare_kind, hints_of, lesson_of, texts_of

Declared = TypeVar("Declared")
Shapes = Sequence[tuple[int, ...]]
Found = dict[str, list[Any]]  # stage -> tensors
STAGES = ("parameters", "output", "gradient of the input", "gradients of parameters")


@dataclass(frozen=True, eq=False)
class Module:
    """An nn.Module to write: same parameters, outputs and gradients as the reference.

    arguments: of the constructor, one tuple per module that is tried.
    inputs: of `forward`, one tuple of shapes per module.
    """

    name: str
    lesson: str
    texts: Texts
    reference: type[nn.Module]
    arguments: tuple[tuple[Any, ...], ...]
    inputs: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def hints(self) -> tuple[str, ...]:
        """Up to three."""
        return hints_of(self.texts)

    def verdict(self, answer: Any) -> Verdict:
        """Stops at the first of parameters, output and gradients that differs."""
        done: dict[str, None] = {}
        for arguments, shapes in zip(self.arguments, self.inputs, strict=True):
            made = ", ".join(map(repr, arguments))
            words = f"{self.name}({made}) on {', '.join(map(str, shapes))}"
            try:
                for name in self._compare(answer, arguments, shapes):
                    done[name] = None
            except Failure as failure:
                return Verdict(
                    tuple(done), failure.arrays["stage"], failure.message, words, failure.told
                )
        return Verdict(tuple(done))

    def _compare(
        self, answer: Any, arguments: tuple[Any, ...], shapes: Shapes
    ) -> Iterable[str]:
        right = self._run(self.reference, arguments, shapes)
        try:
            yours = self._run(answer, arguments, shapes)
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {error}", stage="it runs") from None
        yield "it runs"
        for stage in (
            "parameters",
            "output",
            "gradient of the input",
            "gradients of parameters",
        ):
            problem = _differ(stage, right[stage], yours[stage])
            if problem:
                idea = self._mistake(yours, arguments, shapes)
                moved = "" if idea else self._moved(stage, right[stage], yours[stage])
                told = "mistake" if idea else "reading" if moved else "fact"
                raise Failure(f"{problem} {idea or moved}".strip(), told, stage=stage)
            yield stage

    def _run(self, kind: Any, arguments: tuple[Any, ...], shapes: Shapes) -> Found:
        """Parameters all alike, an output, and where its gradients arrive."""
        generator = torch.Generator().manual_seed(0)
        made = kind(*arguments)
        by_shape = sorted(made.parameters(), key=lambda p: tuple(p.shape))
        with torch.no_grad():
            for parameter in by_shape:  # the same values, whatever the names
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
        x = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        output = made(*x)
        output.backward(torch.randn(output.shape, generator=generator))
        found = {
            "parameters": [torch.tensor(tuple(p.shape)) for p in by_shape],
            "output": [output.detach()],
            "gradient of the input": [part.grad for part in x],
            "gradients of parameters": [p.grad for p in by_shape],
        }
        return found

    def _mistake(
        self,
        yours: Found,
        arguments: tuple[Any, ...],
        shapes: Shapes,
    ) -> str:
        for mistake in mistakes(self.reference, self.texts):
            try:
                same = self._run(mistake.run, arguments, shapes)
            except Exception:
                continue  # a mistake may not run
            if not any(_differ(stage, same[stage], yours[stage]) for stage in yours):
                return says(self.texts, mistake.headings[0])
        return ""

    def _moved(self, stage: str, right: list[Any], yours: list[Any]) -> str:
        """A wrong value of the output that stands elsewhere in the right one; else ""."""
        if stage != "output" or right[0].shape != yours[0].shape:
            return ""
        wanted, given = right[0], yours[0]
        wrong = ~torch.isclose(given, wanted, rtol=1e-4, atol=TOLERANCE)
        for place in wrong.nonzero().tolist():
            found = ((wanted - given[tuple(place)]).abs() <= TOLERANCE).nonzero().tolist()
            if len(found) == 1:  # a pad stands in many places
                return says(self.texts, "moved value", place=place, other=found[0])
        return ""

    def solution(self) -> str:
        """The class."""
        return source_of(self.reference)


def _differ(stage: str, right: list[Any], yours: list[Any]) -> str:
    """What is different between two lists of tensors; "" if nothing is."""
    shapes = [[None if t is None else tuple(t.shape) for t in part] for part in (right, yours)]
    if stage == "parameters":
        wanted, given = ([tuple(t.tolist()) for t in part] for part in (right, yours))
        return (
            ""
            if wanted == given
            else f"Parameters of shapes {wanted} are wanted, yours: {given}."
        )
    if shapes[0] != shapes[1]:
        return f"{stage}: expected shape {shapes[0]}, yours is {shapes[1]}."
    for one, other in zip(right, yours, strict=True):
        wrong = ~torch.isclose(other, one, rtol=1e-4, atol=TOLERANCE)
        if wrong.any():
            return f"{stage}: {int(wrong.sum())} of {wrong.numel()} values are wrong."
    return ""


def module(
    arguments: Sequence[tuple[Any, ...]], inputs: Sequence[Sequence[tuple[int, ...]]]
) -> Callable[[Declared], Declared]:
    """Declare an nn.Module as an exercise.

    Args:
        arguments: of the constructor, one tuple per module that is tried.
        inputs: of `forward`, for each of them the shapes of its tensors.
    """

    def declare(kind: Any) -> Any:
        texts = texts_of(kind.__module__, kind.__name__)
        shapes = tuple(tuple(each) for each in inputs)
        lesson = lesson_of(kind.__module__)
        declare_kind(Module(kind.__name__, lesson, texts, kind, tuple(arguments), shapes))
        return kind

    return declare
