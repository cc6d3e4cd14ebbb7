"""The paper's tables in miniature: what is compared, one trunk for many heads, coverage."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tensormask_edu import viz
from tensormask_edu.ablations import budget as budgets
from tensormask_edu.ablations import coverage, runs, scoring, stored, summary, tables
from tensormask_edu.ablations.tables import HEADS, MODELS, TABLES
from tensormask_edu.ablations.trunk import SharedTrunk
from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.cli import main
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import World, draw, write_shapes
from tensormask_edu.detector import inference, losses
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import WindowMasks
from tensormask_edu.detector.targets import assign, build_targets
from tensormask_edu.evaluation import positives
from tensormask_edu.geometry import sizes_px
from tensormask_edu.masks import iou, tight_boxes
from tensormask_edu.reference import assign as reference

SMALLEST = budgets.Budget("lesson", 2, 64, train=4, val=3, batch_size=2, channels=8, share=True)
SAME_LOSS = 1e-6  # relative: float32 sums in the same order, averaged once more


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four training and three held-out pictures of 64 px."""
    return SMALLEST.write_pictures(tmp_path_factory.mktemp("pictures"), progress=False)


# --- tables -----------------------------------------------------------------------------------


def test_differences_are_those_of_the_papers_rows():
    stated = [
        (one, table.paper) for table in TABLES.values() for one in table.differences
        if {one.better, one.other} <= set(table.paper)
    ]  # fmt: skip
    assert len(stated) == 10
    for one, paper in stated:
        assert paper[one.better] - paper[one.other] == pytest.approx(one.paper)


def test_every_row_is_a_model_and_every_model_is_in_a_table():
    rows = {row for table in TABLES.values() for row in table.rows}
    known = set(MODELS) | set(runs.DETECTORS)
    assert rows <= known and set(MODELS) <= rows
    assert [table.name for table in TABLES.values() if table.shared] == ["1", "2a", "2b"]


@pytest.mark.parametrize("name", MODELS)
def test_rows_differ_in_what_their_name_says(name):
    config = SMALLEST.model(MODELS[name])
    if name in HEADS:
        kind, lam = name.split()
        bins = round(15 / float(lam))
        assert config.coarse_side(0) == (bins, bins) and config.strides_px == (4, 8)
        assert config.representation == ("natural" if kind == "natural" else "aligned")
        assert (config.interpolation == "nearest") == (kind == "nearest")
    else:
        assert config.strides_px == (4, 8, 16)
        assert config.bipyramid == (name != "feature pyramid")
        assert config.geometry.num_sizes == (1 if "one size" in name else 2)
        assert (config.scale_rule == "side") == ("paper's rule" in name)


def test_a_run_that_two_tables_need_is_done_once(tmp_path):
    both = [TABLES["2c"], TABLES["2d"]]
    asked = runs.needed(both, SMALLEST, [3, 4], tmp_path)
    assert [run.name for run in asked if run.seed == 3].count("bipyramid") == 1
    assert [run.seed for run in asked] == [3] * 5 + [4] * 5
    assert len({run.folder for run in asked}) == 10
    heads = runs.needed([TABLES["1"], TABLES["2a"], TABLES["2b"]], SMALLEST, [0], tmp_path)
    assert [run.name for run in heads] == [runs.SHARED]
    alone = replace(SMALLEST, share=False)
    assert len(runs.needed([TABLES["2a"], TABLES["2b"]], alone, [0], tmp_path)) == 9


# --- one trunk --------------------------------------------------------------------------------


def trunk_and_batch(pictures):
    """An untrained trunk in evaluation mode, two pictures, their truths."""
    torch.manual_seed(0)
    model = SharedTrunk(SMALLEST.model(HEADS["aligned 1"]), HEADS).eval()
    dataset = CocoFolder(pictures, "val", keep_empty=True)
    images, truths = zip(*(dataset[i] for i in range(2)), strict=True)
    return model, [image / 255 for image in images], list(truths)


def test_the_loss_of_a_trunk_is_the_mean_of_its_heads(pictures):
    model, images, truths = trunk_and_batch(pictures)
    config, layout = model.config, model.config.geometry.layout(sizes_px(images))
    targets = build_targets(truths, layout, config)
    whole = model.train()(images, targets)
    model.eval().train()  # the batch's statistics again
    output, chosen = model.network(model.batch(images)), layout.windows[targets.window]
    each = []
    for name, seen in model.by_head(output).items():
        natural = model.network.natural(seen)
        masks = [
            WindowMasks(at, natural[k][a][targets.image[at], :, :, chosen.y[at], chosen.x[at]])
            for k, a, at in chosen.groups()
        ]
        assert seen.config.upscale == float(name.split()[1])
        each.append(losses.mask_loss(masks, targets.masks, config.mask_positive_weight))
    mean = config.mask_loss_weight * torch.stack(each).mean() / len(targets.window)
    assert whole["loss_mask"].item() == pytest.approx(mean.item(), rel=SAME_LOSS)
    sum(whole.values()).backward()
    assert all(p.grad is not None for p in model.predictors.parameters())


def test_all_heads_of_a_trunk_are_scored_with_the_same_detections(pictures):
    model, images, _ = trunk_and_batch(pictures)
    model.heads = {  # an untrained network is not sure of anything
        name: replace(head, score_threshold=1e-9) for name, head in model.heads.items()
    }
    model.config = replace(model.config, score_threshold=1e-9)
    layout, sizes = model.config.geometry.layout(sizes_px(images)), sizes_px(images)
    with torch.inference_mode():
        outputs = model.by_head(model.network(model.batch(images)))
        found = [model.detections(one, layout, sizes, sizes)[0] for one in outputs.values()]
    assert len(found) == len(HEADS) and len(found[0]["scores"]) > 10
    for one, other in pairwise(found):
        for field in ("boxes", "scores", "labels"):
            assert torch.equal(one[field], other[field])
    assert any(not torch.equal(one["masks"], found[0]["masks"]) for one in found)


def test_a_trunk_scores_every_head_and_a_model_its_own(pictures):
    model, _, _ = trunk_and_batch(pictures)
    dataset = SMALLEST.held_out(pictures)
    rows = scoring.scores(model, "no name", dataset, SMALLEST.areas, progress=False)
    assert set(rows) == set(HEADS)
    alone = build_model(SMALLEST.model(MODELS["bipyramid"])).eval()
    (name, values), = scoring.scores(
        alone, "bipyramid", dataset, SMALLEST.areas, progress=False
    ).items()  # fmt: skip
    assert name == "bipyramid" and {"IoU", "IoUl", "AP", "AR100"} <= set(values)


def test_iou_at_positive_windows_is_that_of_each_window_drawn_alone(pictures):
    model, images, truths = trunk_and_batch(pictures)
    layout = model.config.geometry.layout(sizes_px(images))
    with torch.inference_mode():
        output = model.by_head(model.network(model.batch(images)))["aligned 3"]
        area, overlap = positives.measure(
            model, output, positives.asked(model.config, layout, truths)
        )
        natural = model.network.natural(output)
    expected = []
    for n, truth in enumerate(truths):
        for window, g in assign(truth["boxes"], model.config, layout).tolist():
            one = layout.windows[torch.tensor([window])]
            logits = natural[int(one.level)][int(one.size_id)][n, :, :, int(one.y), int(one.x)]
            drawn = inference.paste(
                [WindowMasks(torch.tensor([0]), logits[None])], one.box_px, 64, 64
            )
            truth_mask = truth["masks"][g]
            expected.append((int(truth_mask.sum()), float(iou(drawn[0], truth_mask))))
    assert area.tolist() == [pixels for pixels, _ in expected]
    np.testing.assert_allclose(overlap, [value for _, value in expected], atol=1e-6)


def test_means_over_sizes_are_over_their_windows_alone():
    measured = [(torch.tensor([10, 500]), torch.tensor([0.2, 0.4])),
                (torch.tensor([3000]), torch.tensor([0.9]))]  # fmt: skip
    found = positives.summary(measured, SMALLEST.areas)
    assert found == pytest.approx({"IoU": 0.5, "IoUs": 0.2, "IoUm": 0.4, "IoUl": 0.9})


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(budgets.BUDGETS, "lesson", SMALLEST)


def test_ablate_writes_its_tables_and_goes_on_where_it_was(
    tmp_path, small, monkeypatch, capsys
):
    words = ["ablate", "2a", "2b", "--output", str(tmp_path), "--jobs", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "aligned 5 - natural 5" in said and "+15.6" in said and "one trunk" in said
    place = tmp_path / "lesson-2"
    found = read_json(place / "tables.json")
    assert set(found["tables"]) == {"2a", "2b"} and found["seeds"] == [0]
    (one, *_), rows = found["tables"]["2a"]["differences"], found["tables"]["2a"]["rows"]
    difference = rows["aligned 1.5"]["IoU"][0] - rows["natural 1.5"]["IoU"][0]
    assert one["points"]["IoU"] == pytest.approx([100 * difference])
    assert found["cpu_seconds"][runs.SHARED]["training"][0] > 0
    with open(place / "tables.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 + 6 and float(lines[0]["IoU"]) >= 0
    assert (place / "table-2a.png").stat().st_size > 10_000
    # What is done is read: a training would raise.
    monkeypatch.setattr(runs, "train", None)
    assert main(["ablate", "1", *words[3:]]) == 0
    assert "1 runs of 2 steps, 0 of them to do" in capsys.readouterr().out


def test_another_detector_takes_part_by_a_function_of_its_own(tmp_path, pictures, monkeypatch):
    def guess(run, folder):
        """Half the score of the seed's number, on the pictures that all get."""
        assert folder == pictures
        value = {"AP": run.seed / 2} | ({"IoU": 1.0} if run.name == "bold" else {})
        return runs.Outcome({run.name: value}, 0, {"training": 1.0})

    for name in ("bold", "shy"):
        monkeypatch.setitem(runs.DETECTORS, name, guess)
    table = tables.Table("guesses", "?", (tables.Contrast("", "bold", "shy", 1.0),), {}, "AP")
    runs.perform_all(runs.needed([table], SMALLEST, [1, 2], tmp_path), pictures, jobs=1)
    found = summary.summarise([table], SMALLEST, [1, 2], tmp_path)
    assert found["tables"]["guesses"]["rows"]["shy"]["AP"] == [0.5, 1.0]
    assert found["tables"]["guesses"]["differences"][0]["points"] == {"AP": [0.0, 0.0]}
    summary.write(found, tmp_path)
    assert "guesses,shy,2,1.00000," in (tmp_path / "tables.csv").read_text()
    assert "bold - shy" in summary.to_text(found)


@pytest.mark.parametrize(
    ("table", "name", "score"),
    [("ancestors", "DeepMask", "AR100"), ("roi", "RoIPool, sigmoid", "AP75")],
)
def test_an_ancestor_is_a_row_like_others(pictures, tmp_path, table, name, score):
    assert name in TABLES[table].rows and TABLES[table].judged == score
    run = runs.Run(name, 1, SMALLEST, tmp_path)
    runs.perform(run, pictures)
    figures = run.figures()
    assert {"IoU", "AP", score} <= figures["rows"][name].keys()
    assert figures["parameters"] > 1e5 and figures["cpu_seconds"]["training"] > 0


def test_a_training_that_was_stopped_is_not_scored_and_goes_on(tmp_path, small, monkeypatch):
    words = ["ablate", "1", "--output", str(tmp_path), "--jobs", "1"]
    with monkeypatch.context() as patch:
        real = runs.train
        patch.setattr(runs, "train", lambda recipe, *more, **named: real(
            replace(recipe, train=replace(recipe.train, steps=1)), *more, **named
        ))  # fmt: skip
        assert main(words) == 130
    run = runs.Run(runs.SHARED, 0, SMALLEST, tmp_path)
    assert not run.done and read_json(run.folder / runs.SPENT) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["3"], "table: expected one of 1, 2a, 2b, 2c, 2d, ancestors, roi, got 3"),
        (["1", "--budget", "tpu"], "budget: expected one of lesson, laptop, gpu"),
        (["1", "--steps", "0"], "steps: expected at least 1"),
        (["1", "--seeds", "-1"], "seeds: expected from 0 to"),
        (["1", "--jobs", "0"], "jobs: expected at least 1"),
    ],
)
def test_bad_words_are_named(words, message, tmp_path, capsys):
    assert main(["ablate", *words, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_several_runs_at_a_time_give_the_figures_of_one_after_the_other(tmp_path, pictures):
    found = []
    for jobs in (1, 2):
        alone = replace(SMALLEST, share=False)
        asked = runs.needed([TABLES["1"]], alone, [0], tmp_path / str(jobs))
        runs.perform_all(asked, pictures, jobs)
        found.append([run.figures()["rows"] for run in asked])
    assert found[0] == found[1]


def test_a_picture_has_a_bar_of_the_paper_and_a_dot_per_seed():
    differences = [
        {"name": f"λ = {lam}", "paper": paper, "points": {"IoU": [3.0, 4.0], "AP": [1.0, 2.0]}}
        for lam, paper in ((3, 4.1), (5, 15.6))
    ]
    table = {"question": "?", "judged": "IoU", "differences": differences}
    left, right = viz.ablation("2a", table).axes
    assert [patch.get_height() for patch in right.patches] == [4.1, 15.6]
    for ax, values in ((left, [3.0, 4.0]), (right, [1.0, 2.0])):
        dots = [line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"]
        assert len(dots) == 2 and all(list(data) == values for data in dots)


# --- what is stored ---------------------------------------------------------------------------


def test_stored_tables_are_found_by_name_and_form_the_longest_training_of_each(tmp_path):
    def store(folder, steps, one_trunk):
        table = {"one trunk": one_trunk, "differences": []}
        about = {"budget": {"steps": steps}, "seeds": [0], "tables": {"1": table}}
        write_json(tmp_path / folder / "tables.json", about)

    store("lesson-700", 700, True)
    store("laptop-1200", 1200, False)
    store("laptop-2400", 2400, False)
    found = stored.tables(tmp_path)
    steps = {place: table["steps"] for place, table in found.items()}
    assert steps == {("1", stored.TRUNK): 700, ("1", stored.ALONE): 2400}


def test_rows_of_single_detectors_are_paired_by_the_seeds_that_both_have(tmp_path):
    made = (("DeepMask", 0, 0.4), ("DeepMask", 1, 0.5), ("SharpMask", 1, 0.6))
    rows = [
        {"model": model, "seed": seed, "mask_iou": value, "nms": {"AR100": value}}
        for model, seed, value in made
    ]
    write_json(tmp_path / "ancestors.json", {"rows": rows})
    (one,) = stored.tables(tmp_path)["ancestors", stored.ALONE]["differences"]
    assert (one["better"], one["other"]) == ("SharpMask", "DeepMask")
    assert one["points"]["AR100"] == pytest.approx([10])


def test_the_stored_tables_of_the_paper_have_a_value_per_seed():
    found = stored.tables()
    assert {("1", stored.TRUNK), ("2a", stored.TRUNK), ("2b", stored.TRUNK)} <= set(found)
    for (name, _), table in found.items():
        for one in table["differences"]:
            assert one["better"] in TABLES[name].rows
            values = one["points"][table["judged"]]
            assert len(values) == len(table.get("seeds", values)) >= 1


# --- table 2d: coverage -----------------------------------------------------------------------


@pytest.mark.parametrize("world", coverage.WORLDS)
@pytest.mark.parametrize("rule", coverage.RULES.values())
def test_counts_are_those_of_a_loop_over_all_windows(world, rule):
    config = replace(SMALLEST.model(MODELS["bipyramid"]), scale_rule=rule)
    found = coverage.counts(coverage.WORLDS[world], config, pictures=6)
    windows = config.geometry.layout([(64, 64)]).windows
    stride = windows.stride_px.numpy()
    slack, smallest = (stride, 16) if rule == "side - stride" else (0 * stride, 20)
    number = []
    for index in range(6):
        _, masks, _ = draw(0, "train", index, 64, coverage.WORLDS[world])
        owner = reference.assign(
            windows.box_px.numpy(), stride, slack, tight_boxes(masks), smallest
        )
        number += [int((owner == g).sum()) for g in range(len(masks))]
    assert found["objects"] == len(number)
    assert found["windows per object"] == pytest.approx(np.mean(number))
    assert found["without one"] == pytest.approx(np.mean(np.array(number) == 0), abs=1e-7)
    assert found["with one at most"] == pytest.approx(np.mean(np.array(number) < 2), abs=1e-7)


def test_a_second_size_closes_the_gaps_of_the_papers_text_alone():
    lone = {
        (rule, sizes): coverage.counts(
            coverage.WORLDS["standard"],
            replace(SMALLEST.model(MODELS["one size"]), scale_rule=name, sides_bins=bins),
        )["without one"]
        for rule, name in coverage.RULES.items() for sizes, bins in coverage.SIZES.items()
    }  # fmt: skip
    assert lone["paper's text", "7"] > 0.025 and lone["paper's text", "5 and 7"] < 0.01
    assert lone["official", "7"] < 0.01


# --- worlds -----------------------------------------------------------------------------------


def test_a_world_of_one_class_has_the_standard_pictures(tmp_path):
    for name, world in (("four", World()), ("one", World(one_class=True))):
        write_shapes(tmp_path / name, 2, 1, 64, progress=False, world=world)
    four, one = (CocoFolder(tmp_path / name, "train") for name in ("four", "one"))
    assert one.class_names == ("shape",) and len(four.class_names) == 4
    for (image, truth), (same, other) in zip(four, one, strict=True):
        assert torch.equal(image, same) and torch.equal(truth["masks"], other["masks"])
        assert not other["labels"].any()
    assert not write_shapes(
        tmp_path / "one", 2, 1, 64, progress=False, world=World(one_class=True)
    )


def test_a_crowded_world_has_its_shapes_near_the_middle():
    middles = []
    for index in range(8):
        _, masks, _ = draw(0, "train", index, 64, coverage.WORLDS["nested"])
        boxes = tight_boxes(masks)
        middles += ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()
    assert np.abs(np.median(middles, axis=0) - 32).max() < 5
    assert np.std(middles) < 12
