"""A run's report from plain data: report.json, and from it the same page as HTML and as text.

Every number stands beside another way to get it: a claim names what it was checked against, the
difference and the limit. The HTML (`report.html` is its template) is one file with the pictures
inside: no scripts, no link but that to the explorer, readable on a phone and in print.

next: commands/expected.py
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jinja2

from ..base.files import write_json, written_whole
from ..base.stages import Stage
from ..base.tables import text_table
from ..evaluation.coco_scores import SCORE_NAMES


@dataclass(frozen=True)
class Claim:
    """One claim and its check. `difference` None: not checked here, and `note` says why."""

    claim: str
    against: str
    difference: float | None
    limit: float | None
    note: str = ""
    at_least: bool = False  # the number must reach the limit instead of staying below it

    @property
    def holds(self) -> bool | None:
        """None where the check did not run."""
        if self.difference is None or self.limit is None:
            return None
        return self.difference >= self.limit if self.at_least else self.difference <= self.limit

    @property
    def verdict(self) -> str:
        return {None: "not run", True: "holds", False: "FAILS"}[self.holds]


@dataclass(frozen=True)
class Picture:
    """A PNG beside the report; `file` is relative to the report's folder."""

    file: str
    title: str
    caption: str
    part: Literal["results", "method"] = "method"


@dataclass
class Report:
    """Everything the page shows.

    scores: {"segm": {name: value}, "bbox": {...}, "ceiling": {"segm": {...}}}, as evaluate
    gives them, and "shipped": those of the model that comes along. onnx: per raw output the
    largest absolute difference over all inputs. engine: what was built, in words: {"built
    with": ..., "size": ...}. explorer: the page beside it that runs the model in a browser.
    """

    title: str
    made: str
    machine: Mapping[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    onnx: dict[str, float] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    explorer: str = ""

    @property
    def failures(self) -> list[str]:
        """What went wrong: failed stages and claims that do not hold."""
        stages = [f"{s.name}: {s.words}" for s in self.stages if s.state == "failed"]
        return stages + [f"{c.claim}: {c.verdict}" for c in self.claims if c.holds is False]

    @property
    def summary(self) -> str:
        """The page in one sentence."""
        verdicts = Counter(claim.verdict for claim in self.claims)
        failed = sum(stage.state == "failed" for stage in self.stages)
        parts = [f"{verdicts['holds']} of {len(self.claims)} claims hold"]
        if verdicts["FAILS"]:
            parts.append(f"{verdicts['FAILS']} FAIL")
        if verdicts["not run"]:
            parts.append(f"{verdicts['not run']} not run")
        if failed:
            parts.append(f"{failed} of {len(self.stages)} stages FAILED")
        if "segm" in self.scores:
            reachable = self.scores.get("ceiling", {}).get("segm", {}).get("AP")
            beside = "" if reachable is None else f" where {reachable:.3f} is reachable"
            parts.append(f"mask AP {self.scores['segm']['AP']:.3f}{beside}")
        return ", ".join(parts) + "."


@dataclass(frozen=True)
class Table:
    """A titled table of words."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(report: Report) -> dict[str, Table]:
    """The report's tables by part, for both forms of it; the empty ones are left out."""
    claims = [_claim_row(claim) for claim in report.claims]
    columns = ("claim", "checked against", "difference", "limit", "verdict")
    onnx = [(name, _number(value)) for name, value in report.onnx.items()]
    over = "Largest absolute difference over all inputs compared."
    stages = [(s.name, s.state, f"{s.seconds:.1f}", s.words) for s in report.stages]
    engine, machine = list(report.engine.items()), list(report.machine.items())
    made = {
        "claims": Table("What was checked", columns, claims),
        "scores": _score_table(report.scores),
        "onnx": Table(
            "ONNX Runtime and PyTorch", ("raw output", "largest difference"), onnx, over
        ),
        "engine": Table("TensorRT engine", ("what", "value"), engine),
        "stages": Table("The run", ("stage", "state", "seconds", "result"), stages),
        "machine": Table("The machine", ("what", "value"), machine),
    }
    return {part: table for part, table in made.items() if table.rows}


def _claim_row(claim: Claim) -> tuple[str, ...]:
    if claim.difference is None or claim.limit is None:
        return claim.claim, claim.against, "-", "-", f"not run: {claim.note}"
    difference, limit = _number(claim.difference), _number(claim.limit)
    if claim.at_least:
        difference, limit = f"value {difference}", f"at least {limit}"
    note = f" ({claim.note})" if claim.note else ""
    return claim.claim, claim.against, difference, limit, claim.verdict + note


def _score_table(scores: Mapping[str, Any]) -> Table:
    reachable = scores.get("ceiling", {}).get("segm")
    columns = {"masks": scores.get("segm"), "boxes": scores.get("bbox")}
    columns["masks, model that comes along"] = scores.get("shipped", {}).get("segm")
    columns["masks, ceiling"] = reachable
    shown = {k: v for k, v in columns.items() if v}
    names = SCORE_NAMES if shown else ()
    rows = [(name, *(_score(values[name]) for values in shown.values())) for name in names]
    note = (
        "COCO scores by pycocotools on the held-out images. The ceiling pastes the true masks, "
        "cut into the model's own windows and bins: what learning its targets exactly would "
        "score."
    )
    return Table("Average precision", ("score", *shown), rows, note)


def _score(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"  # -1: no object of that size


def _number(value: float) -> str:
    """Three digits: 0.531, 3.1e-07, 0."""
    return f"{value:.3g}"


def to_text(report: Report) -> str:
    """The report for a terminal."""
    parts = {table.title: [table.head, *table.rows] for table in tables(report).values()}
    parts["Pictures"] = [(picture.file, picture.title) for picture in report.pictures]
    parts["FAILED"] = [(line,) for line in report.failures]
    head = f"{report.title}\n{report.made}\n{report.summary}"
    shown = [f"{title}\n{text_table(rows, '  ')}" for title, rows in parts.items() if rows]
    return "\n\n".join([head, *shown]) + "\n"


def to_html(report: Report, folder: Path) -> str:
    """The report as one HTML page; pictures are read from `folder` and put inside."""

    def inside(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode("ascii")

    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    jinja = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = jinja.from_string(template)
    return page.render(report=report, tables=tables(report), base64=inside)


def write_report(report: Report, folder: str | Path) -> Path:
    """Write report.json, .txt and .html into `folder`, each whole; returns the HTML's path."""
    folder = Path(folder)
    claims = [{**asdict(claim), "holds": claim.holds} for claim in report.claims]
    more = {"claims": claims, "failures": report.failures}
    write_json(folder / "report.json", asdict(report) | more)
    forms = {"report.txt": to_text(report), "report.html": to_html(report, folder)}
    for name, content in forms.items():
        with written_whole(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return folder / "report.html"
