"""The report says what the run found, in three forms; the demo tells failures from absences."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tolerances import LOSS_REL

from tensormask_edu import viz
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.stages import NotRun, Stage
from tensormask_edu.commands import demo
from tensormask_edu.commands.expected import Curve
from tensormask_edu.commands.report import (
    Claim,
    Picture,
    Report,
    tables,
    to_html,
    to_text,
    write_report,
)
from tensormask_edu.config import RECIPES, Recipe
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.evaluation.coco_scores import SCORE_NAMES


def scores(ap: float) -> dict[str, float]:
    return {name: ap for name in SCORE_NAMES} | {"APl": -1.0}


def full_report() -> Report:
    return Report(
        title="A run <of & all>",
        made="today",
        machine={"python": "3.14"},
        stages=[
            Stage("train", "done", 12.34, "40 steps"),
            Stage("engine", "not run", 0.0, "no backend"),
        ],
        claims=[
            Claim("operators", "NumPy", 3.1e-7, 1e-5, "relative"),
            Claim("mask AP", "pycocotools", 0.531, 0.48, at_least=True),
            Claim("engine", "PyTorch", None, None, "no GPU"),
        ],
        scores={"segm": scores(0.531), "bbox": scores(0.6), "ceiling": {"segm": scores(0.57)}},
        onnx={"logits_0": 1.9e-6},
        engine={"built with": "tensorrt_rtx 1.7"},
        pictures=[
            Picture("one.png", "A picture", "Look at this."),
            Picture("two.png", "B", "b", "results"),
        ],
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures of `full_report`."""
    for name in ("one.png", "two.png"):
        viz.save(viz.diagonal_shear(), tmp_path / name, dpi=40)
    return tmp_path


class Page(HTMLParser):
    """What a page holds: cells, image sources, links, and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "hr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim("a", "b", 1e-6, 1e-5), True),
        (Claim("a", "b", 1e-5, 1e-5), True),
        (Claim("a", "b", 2e-5, 1e-5), False),
        (Claim("a", "b", float("inf"), 1e-5), False),
        (Claim("a", "b", float("nan"), 1e-5), False),
        (Claim("a", "b", None, 1e-5), None),
        (Claim("a", "b", 0.5, 0.48, at_least=True), True),
        (Claim("a", "b", 0.4, 0.48, at_least=True), False),
    ],
)
def test_a_claim_holds_within_its_limit(claim, holds):
    assert claim.holds is holds


def test_the_summary_counts_what_holds_fails_and_did_not_run():
    report = full_report()
    assert (
        report.summary
        == "2 of 3 claims hold, 1 not run, mask AP 0.531 where 0.570 is reachable."
    )
    report.claims.append(Claim("broken", "truth", 1.0, 0.1))
    report.stages.append(Stage("onnx", "failed", 0.0, "crash"))
    assert report.summary.startswith(
        "2 of 4 claims hold, 1 FAIL, 1 not run, 1 of 3 stages FAILED"
    )
    assert report.failures == ["onnx: crash", "broken: FAILS"]


def test_the_page_is_whole_and_needs_nothing_outside(folder):
    page = Page(to_html(full_report(), folder))
    assert not page.open
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(sources) == 2 and all(
        source.startswith("data:image/png;base64,") for source in sources
    )
    assert not [name for _, name, _ in page.attributes if name in ("href", "srcset", "onclick")]
    text = to_html(full_report(), folder)
    assert "<script" not in text and "@import" not in text and not re.search(r"https?://", text)


def test_words_cannot_break_the_page(folder):
    report = full_report()
    report.stages.append(Stage("<script>alert(1)</script>", "failed", 0.0, '"><b>'))
    text = to_html(report, folder)
    assert "<script" not in text and "<b>" not in text
    assert "<title>A run &lt;of &amp; all&gt;</title>" in text


def test_text_and_page_hold_the_same_cells(folder):
    report = full_report()
    cells = [cell for table in tables(report).values() for row in table.rows for cell in row]
    page, text = Page(to_html(report, folder)), to_text(report)
    assert sorted(page.cells) == sorted(cells)
    assert all(cell in text for cell in cells)
    assert {"3.1e-07", "value 0.531", "at least 0.48", "not run: no GPU", "0.570", "-"} <= set(
        cells
    )


def test_an_empty_report_can_be_written(tmp_path):
    page = write_report(Report("nothing", "now"), tmp_path / "new")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (
        (tmp_path / "new" / "report.txt")
        .read_text(encoding="utf-8")
        .startswith("nothing\nnow\n0 of 0 claims")
    )


def test_the_json_is_the_report(folder):
    write_report(full_report(), folder)
    stored = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert stored["scores"]["ceiling"]["segm"]["AP"] == 0.57 and stored["failures"] == []
    assert [claim["holds"] for claim in stored["claims"]] == [True, True, None]
    claims = [
        Claim(**{k: v for k, v in claim.items() if k != "holds"}) for claim in stored["claims"]
    ]
    assert claims == full_report().claims


def test_a_missing_picture_leaves_no_half_report(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(full_report(), tmp_path)
    assert not (tmp_path / "report.html").exists()


# --- The demo's way with its stages -----------------------------------------------------------


def run_with(monkeypatch, tmp_path, **stages) -> tuple[int, dict]:
    """Run the demo with other stages: name=(function of the run, what it needs)."""
    monkeypatch.setattr(
        demo, "STAGES", tuple((name, work, needs) for name, (work, needs) in stages.items())
    )
    code = demo.run_demo(tmp_path / "out", quick=True)
    return code, json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))


def absent(run):
    raise demo.NotRun("onnx not installed: pip install it")


def broken(run):
    raise ZeroDivisionError("of all things")


def test_an_absent_package_is_no_failure(monkeypatch, tmp_path, capsys):
    stages = {
        "first": (lambda run: "fine", ()),
        "export": (absent, ()),
        "verify": (broken, ("export",)),
    }
    code, report = run_with(monkeypatch, tmp_path, **stages)
    assert code == 0 and [stage["state"] for stage in report["stages"]] == [
        "done",
        "not run",
        "not run",
    ]
    assert report["stages"][2]["words"] == "needs the stage export"
    assert "not run: onnx not installed: pip install it" in capsys.readouterr().out


def test_a_stage_that_breaks_makes_the_exit_code_1_and_the_rest_goes_on(
    monkeypatch, tmp_path, capsys
):
    stages = {
        "bad": (broken, ()),
        "after": (lambda run: "fine", ("bad",)),
        "free": (lambda run: "fine", ()),
    }
    code, report = run_with(monkeypatch, tmp_path, **stages)
    assert code == 1 and [stage["state"] for stage in report["stages"]] == [
        "failed",
        "not run",
        "done",
    ]
    assert report["failures"] == ["bad: ZeroDivisionError: of all things"]
    assert "Traceback" in capsys.readouterr().err


def test_a_claim_that_fails_makes_the_exit_code_1(monkeypatch, tmp_path):
    def wrong(run):
        run.claim("equal", "the truth", 1.0, 1e-5)
        return "compared"

    code, report = run_with(monkeypatch, tmp_path, compare=(wrong, ()))
    assert code == 1 and report["failures"] == ["equal: FAILS"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minutes": 0.0}, "minutes: expected a positive number"),
        ({}, "cannot make this folder"),
    ],
)
def test_bad_arguments_stop_the_demo_before_any_work(arguments, message, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / ("out" if arguments else "file")
    with pytest.raises(InputError, match=message):
        demo.run_demo(place, **arguments)
    assert not (tmp_path / "out").exists()


def test_a_child_that_stops_is_told_by_its_last_words(tmp_path):
    run = demo.start(tmp_path, 1.0, 0, quick=True)
    with pytest.raises(demo.Failed, match=r"tensormask-export verify, exit code 2: error: "):
        demo._exporter(run, "verify", tmp_path / "no.onnx", tmp_path / "no_checkpoint")
    assert (tmp_path / "export_verify.log").read_text(encoding="utf-8").startswith("error: ")


ENGINE_CLAIM = {
    "claim": "TensorRT engine, every raw output",
    "against": "PyTorch",
    "difference": None,
    "limit": None,
    "note": "an engine needs an NVIDIA GPU to run",
    "at_least": False,
}
VERIFY_CLAIMS = [
    ENGINE_CLAIM
    | {"claim": "onnxruntime", "difference": 2e-6, "limit": 1e-4, "note": "2 inputs"},
    ENGINE_CLAIM | {"claim": "parsed", "difference": float("inf"), "limit": 1e-4, "note": ""},
]
ANSWERS = {
    "onnx": {"summary": "2.0 MiB, 4 outputs", "claims": [], "facts": {}},
    "verify": {
        "summary": "largest difference 2.0e-06",
        "claims": VERIFY_CLAIMS,
        "facts": {},
        "worst": {"parsed": {"logits_0": float("inf")}, "onnxruntime": {"logits_0": 2e-6}},
    },
    "engine": {"summary": "3 MiB", "claims": [ENGINE_CLAIM], "facts": {"size": "3 MiB"}},
}


def test_the_exporters_claims_and_facts_stand_in_the_demos_report(monkeypatch, tmp_path):
    def exporter(words, **options):
        command, answer = words[3], words[words.index("--json") + 1]
        Path(answer).write_text(json.dumps(ANSWERS[command]), encoding="utf-8")
        return SimpleNamespace(returncode=0, stdout="done", stderr="")

    monkeypatch.setattr(demo.subprocess, "run", exporter)
    monkeypatch.setattr(demo, "version", lambda name: "1.0")
    exports = {
        "onnx": (demo.export_onnx, ()),
        "verify": (demo.verify_onnx, ("onnx",)),
        "engine": (demo.build_engine, ("onnx",)),
    }
    code, report = run_with(monkeypatch, tmp_path, **exports)
    assert [stage["words"] for stage in report["stages"]] == [
        answer["summary"] for answer in ANSWERS.values()
    ]
    claims = [{k: v for k, v in claim.items() if k != "holds"} for claim in report["claims"]]
    assert claims == [*VERIFY_CLAIMS, ENGINE_CLAIM]
    assert [claim["holds"] for claim in report["claims"]] == [True, False, None]
    assert report["onnx"] == {"logits_0": 2e-6} and report["engine"] == {"size": "3 MiB"}
    assert code == 1 and report["failures"] == ["parsed: FAILS"]


def test_the_exporter_takes_the_demos_arguments_and_answers_what_the_demo_reads():
    from tensormask_export.cli import build_parser
    from tensormask_export.verify.compare import Difference
    from tensormask_export.verify.report import VerifyReport

    for command in ("onnx", "verify", "engine"):
        args = build_parser().parse_args([command, "first", "second", "--json", "answer.json"])
        assert args.json == "answer.json"
    differs = Difference("onnxruntime", "1x128x128", "logits_0", (1,), 1e-6, 1e-6, True)
    verified = VerifyReport("m", "c", 1e-4, [differs], {}, 1.0).to_json()
    built = engine_report().to_json()
    for answer in (onnx_report().to_json(), verified, built):
        assert isinstance(answer["summary"], str) and isinstance(answer["facts"], dict)
    claims = [Claim(**claim) for answer in (verified, built) for claim in answer["claims"]]
    assert [claim.holds for claim in claims] == [True, None]
    assert [claim.claim for claim in claims] == [
        "onnxruntime, every raw output",
        "TensorRT engine, every raw output",
    ]
    assert verified["worst"] == {"onnxruntime": {"logits_0": 1e-6}}
    assert {"built with", "size", "for", "our operators"} <= built["facts"].keys()


def onnx_report():
    from tensormask_export.onnx_file.write import OnnxReport

    texts = dict.fromkeys(("path", "sha256", "weights_sha256"), "")
    more = {"detector": {}, "opset": 20, "nodes": {"SwapAlign2Nat": 9}, "outputs": ["boxes"]}
    return OnnxReport(bytes=1, notes=[], seconds=1.0, **texts, **more)


def engine_report():
    from tensormask_export.engine.build import EngineReport

    names = ("path", "manifest", "sha256", "model_sha256", "backend", "version", "command")
    shapes = dict.fromkeys(("min", "opt", "max"), (1, 3, 64, 64))
    return EngineReport(
        bytes=1,
        targets={"compute_capabilities": ["8.9"], "note": "here"},
        profile=shapes,
        plugin={},
        ops={},
        layers={},
        seconds=1.0,
        warnings=[],
        **dict.fromkeys(names, ""),
    )


def test_masks_and_loss_at_positive_windows_equal_the_dense_ones():
    model = build_model("tiny", num_classes=2).eval()
    images = [torch.rand(3, 64, 96), torch.rand(3, 64, 64)]
    targets = []
    for image in images:
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.bool)
        masks[0, 4:20, 6:30], masks[1, 30:60, 20:50] = True, True
        boxes = torch.tensor([[6.0, 4, 30, 20], [20, 30, 50, 60]])
        targets.append({"boxes": boxes, "labels": torch.tensor([0, 1]), "masks": masks})
    with torch.inference_mode():
        sparse, dense, worst = demo.mask_losses(model, images, targets)
    assert sparse > 0 and abs(sparse - dense) <= LOSS_REL * dense
    assert worst <= demo.SAME_OP


def test_the_demo_runs_from_shapes_to_predictions(monkeypatch, tmp_path):
    chosen = ("shapes", "method", "train", "sparse and dense", "evaluate", "predict")
    chosen += ("shipped model",)
    monkeypatch.setattr(
        demo, "STAGES", tuple(stage for stage in demo.STAGES if stage[0] in chosen)
    )
    monkeypatch.setattr(demo, "QUICK", {"steps": 4, "log_every": 2})
    assert demo.run_demo(tmp_path, quick=True) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [stage["state"] for stage in report["stages"]] == ["done"] * len(chosen)
    assert len(report["pictures"]) == 9 and report["scores"]["ceiling"]["segm"]["AP"] > 0.4
    assert {claim["claim"] for claim in report["claims"] if claim["holds"]} == {
        "masks at positive windows",
        "mask loss at positive windows",
    }


WRONG_STEPS = 500  # from here on a sound model is surely better than chance
CURVE = Curve(
    [200, 1000, demo.STEPS], [[0.04, 0.06, 0.05], [0.30, 0.30, 0.33], [0.50, 0.51, 0.52]]
)


@pytest.mark.parametrize(
    ("steps", "ap", "holds"),
    [
        (demo.STEPS, 0.51, True),
        (demo.STEPS, 0.40, False),
        (1000, 0.31, True),
        (1000, 0.10, False),
        (1700, 0.29, True),  # the clock ended it: a band that is lower still
        (1700, 0.20, False),
        (200, 0.05, True),
        (200, 0.0, False),  # at half of the mean the band can fail even there
        (150, 0.0, None),
    ],
)
def test_ap_is_judged_at_the_steps_the_clock_allowed(steps, ap, holds, tmp_path, monkeypatch):
    scores = {name: {"AP": ap} for name in ("segm", "bbox")}
    monkeypatch.setattr(demo.evaluate, "evaluate", lambda *args, **kwargs: dict(scores))
    monkeypatch.setattr(demo, "ceiling", lambda *args, **kwargs: {"segm": {"AP": 0.614}})
    monkeypatch.setattr(demo, "learning_curve", lambda: CURVE)
    run = demo.start(tmp_path, 4.7, 0, quick=False)
    run.trained, run.held_out, run.steps = (SimpleNamespace(config=None), None), None, steps
    assert f"mask AP {ap:.3f}" in demo.score_model(run)
    (claim,) = run.report.claims
    assert claim.holds is holds and f"after {steps} steps" in claim.claim
    cut = 150 < steps < demo.STEPS
    ended = f"the clock ended training before {demo.STEPS} steps"
    assert (ended in claim.note) is cut


def sound(folder: Path) -> Recipe:
    return RECIPES["shapes"]


def without_mask_loss(folder: Path) -> Recipe:
    return change(model={"mask_loss_weight": 0.0})


def without_learning(folder: Path) -> Recipe:
    return change(train={"lr": 1e-12})


def with_shuffled_labels(folder: Path) -> Recipe:
    """The training pictures' classes are exchanged at random."""
    truth = json.loads((folder / "instances_train.json").read_text())
    classes = [annotation["category_id"] for annotation in truth["annotations"]]
    random.Random(0).shuffle(classes)
    for annotation, number in zip(truth["annotations"], classes, strict=True):
        annotation["category_id"] = number
    (folder / "instances_train.json").write_text(json.dumps(truth))
    return RECIPES["shapes"]


def change(**parts: dict[str, float]) -> Recipe:
    recipe = RECIPES["shapes"]
    return replace(recipe, **{k: replace(getattr(recipe, k), **v) for k, v in parts.items()})


@pytest.fixture(scope="module")
def overlap_world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shapes"
    write_shapes(folder)
    return folder


@pytest.mark.long  # each trains for some minutes
@pytest.mark.parametrize(
    ("made", "steps", "code"),
    [
        (sound, WRONG_STEPS, 0),
        (without_mask_loss, WRONG_STEPS, 1),
        (without_learning, WRONG_STEPS, 1),
        # Classes are what is learnt last: before, a sound model does not know them either
        (with_shuffled_labels, 2 * WRONG_STEPS, 1),
    ],
)
def test_a_model_made_wrong_fails_the_demo_and_a_sound_one_does_not(
    made, steps, code, overlap_world, tmp_path, monkeypatch
):
    shutil.copytree(overlap_world, tmp_path / "shapes")
    monkeypatch.setitem(demo.RECIPES, "shapes", made(tmp_path / "shapes"))
    chosen = ("shapes", "train", "evaluate")
    monkeypatch.setattr(
        demo, "STAGES", tuple(stage for stage in demo.STAGES if stage[0] in chosen)
    )
    assert demo.run_demo(tmp_path, minutes=60, steps=steps) == code
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [stage["state"] for stage in report["stages"]] == ["done"] * len(chosen)
    (claim,) = report["claims"]
    assert claim["holds"] is (code == 0)


def test_the_band_lies_below_the_mean_and_follows_it():
    lows, means = zip(*(CURVE.at(steps) for steps in range(200, 5000, 50)), strict=True)
    assert all(0 < low < mean for low, mean in zip(lows, means, strict=True))
    assert list(means) == sorted(means) and CURVE.at(demo.STEPS) == CURVE.at(9999)


def test_the_pace_is_measured_and_said_beforehand(tmp_path):
    words = demo.how_long(demo.start(tmp_path, 0.001, 0, quick=False))
    assert "s a training step here" in words and "judged at what is reached" in words


# --- the explorer -----------------------------------------------------------------------------


def demo_run(folder) -> demo.Run:
    run = demo.Run(folder, RECIPES["shapes"], quick=True, report=full_report())
    run.onnx.write_bytes(b"an ONNX file")
    return run


def test_the_explorer_takes_the_trained_model_and_the_report_links_to_it(
    folder, tmp_path, monkeypatch
):
    page = tmp_path / "built.html"
    page.write_text('<script id="model.onnx">H4sI</script><script id="runtime.wasm">A</script>')
    monkeypatch.setattr(demo, "EXPLORER", page)
    run = demo_run(folder)
    demo.hand_to_explorer(run)
    filled = (folder / "explorer.html").read_text()
    inside = re.search('id="model.onnx" data-own>([^<]*)<', filled)
    assert gzip.decompress(base64.b64decode(inside[1])) == b"an ONNX file"
    assert filled.endswith('<script id="runtime.wasm">A</script>')
    links = [
        value
        for _, name, value in Page(to_html(run.report, folder)).attributes
        if name == "href"
    ]
    assert links == ["explorer.html"]


def test_without_the_explorer_the_report_says_which_command_builds_it(folder, monkeypatch):
    monkeypatch.setattr(demo, "EXPLORER", folder / "nothing.html")
    run = demo_run(folder)
    with pytest.raises(NotRun, match="`make explorer` builds the page"):
        demo.hand_to_explorer(run)
    assert "<code>make explorer</code>" in to_html(run.report, folder)
