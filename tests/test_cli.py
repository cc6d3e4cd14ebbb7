"""The command line: what it writes, and one line with exit code 2 for bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import pytest
from exported import SMALL, checkpoint
from PIL import Image

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.cli import main
from tensormask_edu.commands.predict import picture_names, predict
from tensormask_edu.config import InputConfig, to_json
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_shapes(folder / "shapes", train=4, val=2, size_px=64, progress=False)
    arguments = [
        "train",
        str(folder / "shapes"),
        "--output",
        str(folder / "run"),
        "--steps",
        "2",
    ]
    assert main([*arguments, "--batch-size", "2"]) == 0
    return folder


def copied(world, tmp_path):
    """A data set to be broken."""
    return shutil.copytree(world / "shapes", tmp_path / "broken")


def edit(path, change):
    values = read_json(path)
    change(values)
    write_json(path, values)


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_train_evaluate_predict_follow_each_other(world, tmp_path, capsys):
    checkpoint, shapes = str(world / "run" / "checkpoint"), str(world / "shapes")
    words = ["evaluate", checkpoint, shapes, "--losses", "--views", "2"]
    assert main([*words, "--json", str(tmp_path / "scores.json")]) == 0
    scores = read_json(tmp_path / "scores.json")
    assert set(scores) >= {"segm", "bbox", "ceiling"}
    assert scores["ceiling"]["segm"]["AP"] > 0.2
    assert "AP" in capsys.readouterr().out
    picture = next((world / "shapes" / "images").glob("val_*.png"))
    assert (
        main(
            [
                "predict",
                checkpoint,
                str(picture),
                "--output",
                str(tmp_path / "seen"),
                "--score",
                "0",
                "--views",
                "2",
            ]
        )
        == 0
    )
    assert files_below(tmp_path / "seen") == ["detections.json", picture.name]


def test_resume_goes_on(world, tmp_path):
    output = shutil.copytree(world / "run", tmp_path / "run")
    arguments = [
        "train",
        str(world / "shapes"),
        "--output",
        str(output),
        "--batch-size",
        "2",
        "--steps",
        "4",
    ]
    assert main([*arguments, "--resume"]) == 0
    assert json.loads((output / "log.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_evaluate_scores_files_and_perfect_detections_score_one(world, tmp_path, capsys):
    truth = world / "shapes" / "instances_val.json"
    keys = ("image_id", "category_id", "segmentation", "bbox")
    found = [{**{k: a[k] for k in keys}, "score": 1.0} for a in read_json(truth)["annotations"]]
    write_json(tmp_path / "found.json", found)
    for iou in ("segm", "bbox"):
        files = ["--ground-truth", str(truth), "--detections", str(tmp_path / "found.json")]
        assert main(["evaluate", *files, "--iou", iou, "--json", str(tmp_path / "s.json")]) == 0
        assert read_json(tmp_path / "s.json")[iou]["AP"] == pytest.approx(1.0)


def fails(capsys, arguments, *words):
    """The command ends with code 2 and one line on stderr that holds the words."""
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error
    for word in words:
        assert word in lines[0]


def test_missing_files_are_named(world, tmp_path, capsys):
    output, checkpoint = tmp_path / "out", world / "run" / "checkpoint"
    fails(capsys, ["train", tmp_path / "none", "--output", output], "folder", "none")
    fails(capsys, ["evaluate", tmp_path / "none", world / "shapes"], "checkpoint", "none")
    fails(capsys, ["evaluate", checkpoint, tmp_path / "none"], "folder", "none")
    fails(
        capsys,
        ["evaluate", checkpoint, world / "shapes", "--split", "test"],
        "instances_test.json",
    )
    fails(
        capsys,
        ["predict", checkpoint, tmp_path / "none.png", "--output", output],
        "image",
        "none.png",
    )
    fails(capsys, ["predict", tmp_path / "none", tmp_path, "--output", output], "image")
    assert not output.exists()


def broken_json(shapes):
    (shapes / "instances_train.json").write_text('{"images": [')


def unknown_category(shapes):
    edit(shapes / "instances_train.json", lambda v: v["annotations"][0].update(category_id=999))


def zero_size(shapes):
    edit(shapes / "instances_train.json", lambda v: v["images"][0].update(height=0))


def no_picture(shapes):
    next((shapes / "images").glob("train_*")).unlink()


def wrong_size(shapes):
    for file in (shapes / "images").glob("train_*"):
        Image.new("RGB", (32, 48)).save(file)


@pytest.mark.parametrize(
    "damage, words",
    [
        (broken_json, ("valid JSON",)),
        (unknown_category, ("unknown category 999",)),
        (zero_size, ("1 x 1 pixels", "height 0")),
        (no_picture, ("image file", "train_")),
        (wrong_size, ("(64, 64)", "(48, 32)")),
    ],
)
def test_damaged_data_sets_are_refused_before_anything_is_written(
    world, tmp_path, capsys, damage, words
):
    shapes = copied(world, tmp_path)
    damage(shapes)
    fails(capsys, ["train", shapes, "--output", tmp_path / "out", "--steps", "2"], *words)
    assert not [f for f in files_below(tmp_path) if f.endswith((".safetensors", "config.json"))]


def test_unknown_names_and_numbers_are_refused(world, tmp_path, capsys):
    train = ["train", world / "shapes", "--output", tmp_path / "out"]
    fails(capsys, [*train, "--preset", "huge"], "preset", "tiny", "'huge'")
    fails(capsys, [*train, "--recipe", "pizza"], "recipe", "shapes, cells", "'pizza'")
    fails(capsys, [*train, "--steps", "0"], "steps", "at least 1", "0")
    fails(capsys, [*train, "--lr", "-1"], "lr", "-1")
    fails(capsys, [*train, "--resume"], "resume")
    fails(capsys, ["shapes", tmp_path / "s", "--train", "0"], "train", "at least 1")
    predict = ["predict", world / "run" / "checkpoint", tmp_path, "--output", tmp_path / "o"]
    fails(capsys, [*predict, "--score", "7"], "score")
    fails(capsys, [*predict, "--precision", "half"], "precision", "bfloat16")
    fails(capsys, [*predict, "--tile", "100"], "tile", "at least 256 px")
    fails(capsys, [*predict, "--views", "3"], "views", "1, 2, 4 or 8", "3")
    seen = ["evaluate", world / "run" / "checkpoint", world / "shapes", "--views", "3"]
    fails(capsys, seen, "views", "1, 2, 4 or 8", "3")
    fails(capsys, ["evaluate"], "CHECKPOINT FOLDER")
    fails(capsys, ["evaluate", world, "--ground-truth", world], "either")
    assert files_below(tmp_path) == []


def test_a_checkpoint_of_another_configuration_is_refused(world, tmp_path, capsys):
    checkpoint = shutil.copytree(world / "run" / "checkpoint", tmp_path / "checkpoint")
    edit(checkpoint / "config.json", lambda v: v["model"].update(mask_channels=16))
    fails(capsys, ["evaluate", checkpoint, world / "shapes"], "another configuration")


def test_a_checkpoint_of_other_classes_is_refused(world, tmp_path, capsys):
    save_checkpoint(tmp_path / "c", build_model("tiny", num_classes=2), InputConfig())
    fails(
        capsys,
        ["evaluate", tmp_path / "c", world / "shapes"],
        "checkpoint",
        "ellipse",
        "class 0",
    )


@pytest.mark.parametrize(
    "found, words",
    [
        ("{}", ("JSON list",)),
        ("[", ("valid JSON",)),
        ('[{"image_id": 999, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}]', ("999",)),
    ],
)
def test_bad_detection_files_are_refused(world, tmp_path, capsys, found, words):
    (tmp_path / "found.json").write_text(found)
    truth = world / "shapes" / "instances_val.json"
    arguments = [
        "--ground-truth",
        truth,
        "--detections",
        tmp_path / "found.json",
        "--iou",
        "bbox",
    ]
    fails(capsys, ["evaluate", *arguments], *words)


def test_an_unwritable_output_is_one_error(world, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    fails(
        capsys,
        ["train", world / "shapes", "--output", tmp_path / "file", "--steps", "2"],
        "file",
    )


def test_a_picture_that_is_none_is_refused(world, tmp_path, capsys):
    (tmp_path / "a.png").write_text("no picture")
    arguments = [
        "predict",
        world / "run" / "checkpoint",
        tmp_path / "a.png",
        "--output",
        tmp_path / "out",
    ]
    fails(capsys, arguments, "image", "a.png")
    assert not (tmp_path / "out").exists()


def photos(world, folder, *names):
    """The first held-out picture under several names."""
    folder.mkdir()
    with Image.open(world / "shapes" / "images" / "val_00000.png") as picture:
        for name in names:
            picture.save(folder / name)
    return folder


def test_bad_pictures_of_a_folder_are_listed_and_the_others_done(world, tmp_path, capsys):
    folder, seen = photos(world, tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "o"
    (folder / "._a.png").write_bytes(b"AppleDouble")
    (folder / "like.png").mkdir()
    (folder / "dead.png").symlink_to("/nowhere")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:500])
    model = checkpoint(tmp_path, SMALL, InputConfig())  # it finds something everywhere
    words = ["predict", str(model), str(folder), "--output", str(seen)]
    assert main([*words, "--score", "0"]) == 1
    assert files_below(seen) == ["a.png", "c.png", "detections.json"]
    assert {each["image_id"] for each in read_json(seen / "detections.json")} == {
        "a.png",
        "c.png",
    }
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out: " in line]
    assert ["b.png" in lines[0], "dead.png" in lines[1], len(lines)] == [True, True, 2]


def test_pictures_of_one_name_get_drawings_of_their_own(world, tmp_path):
    names = ("a.jpg", "a.png", "A.bmp", "b.png", "c.jpg", "c.jpg.png")
    folder = photos(world, tmp_path / "photos", *names)
    seen = predict(world / "run" / "checkpoint", folder, tmp_path / "seen").pictures
    drawn = ["A.bmp.png", "a.jpg.png", "a.png.png", "b.png", "c.png", "c.jpg.png.png"]
    assert [path.name for path in seen] == drawn
    assert files_below(tmp_path / "seen") == sorted([*drawn, "detections.json"])


def test_drawings_differ_on_every_disk():
    names = [
        "A.PNG",
        "a.jpg",
        "a.png",
        "a.png.2.png",
        "\u00e4.png",
        "a\u0308.png",
        "a\u0308.PNG",
    ]
    drawn = picture_names([Path(name) for name in names])
    assert drawn[:4] == ["A.PNG.png", "a.jpg.png", "a.png.2.png", "a.png.2.2.png"]
    assert len({normalize("NFD", name).casefold() for name in drawn}) == len(names)


def test_results_are_not_written_over_what_they_come_from(world, tmp_path, capsys, monkeypatch):
    checkpoint, shapes = (world / "run" / "checkpoint", world / "shapes")
    folder = photos(world, tmp_path / "photos", "a.png")
    linked, alone = tmp_path / "linked", photos(world, tmp_path / "alone")
    linked.symlink_to(folder)
    (alone / "b.png").symlink_to(folder / "a.png")
    monkeypatch.chdir(folder)
    before = (folder / "a.png").read_bytes()
    for source, output in (
        (folder, folder),
        (folder, linked),
        (folder / "a.png", "."),
        (alone, folder),
        (alone, alone),
    ):
        words = ["predict", checkpoint, source, "--output", output]
        fails(capsys, words, "output: ", "would replace")
    assert (folder / "a.png").read_bytes() == before
    truth = tmp_path / "truth.json"
    truth.symlink_to(shapes / "instances_val.json")
    for file in (truth, checkpoint / "config.json", next((shapes / "images").iterdir())):
        fails(capsys, ["evaluate", checkpoint, shapes, "--json", file], "json: ", "replace")
    other = ["evaluate", checkpoint, shapes, "--split", "train", "--json"]
    fails(capsys, [*other, shapes / "instances_val.json"], "json: ", "replace")
    score = ["evaluate", "--ground-truth", truth, "--detections", "none.json"]
    fails(capsys, [*score, "--json", shapes / "instances_val.json"], "json: ", "replace")
    convert = ["convert", tmp_path / "any.pkl", "--preset", "r50_fpn_1x", "--output"]
    fails(capsys, [*convert, checkpoint], "output: ", "without a checkpoint")
    fails(capsys, ["shapes", folder], "folder: ", "a.png")
    fails(capsys, ["report-bug", "--output", truth], "output: ", "holds something else")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(world, tmp_path, capsys):
    checkpoint, shapes = world / "run" / "checkpoint", world / "shapes"
    fails(capsys, ["evaluate", checkpoint, shapes, "--json", tmp_path], "is a folder")
    fails(capsys, ["check-ops", "--json", tmp_path], "is a folder")
    (tmp_path / "text").write_text("")
    for place in (tmp_path / "text", tmp_path / "text" / "below"):
        words = ["predict", tmp_path / "no checkpoint", shapes / "images", "--output", place]
        fails(capsys, words, "cannot make this folder", "a file is in the way")


COMMANDS = (
    "demo", "shapes", "inspect", "train", "evaluate", "predict", "ablate", "convert",
    "check-ops", "doctor",
)  # fmt: skip


def test_every_command_explains_itself(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        text = capsys.readouterr().out
        assert stopped.value.code == 0 and "example:" in text


def test_help_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys\n"
        "from tensormask_edu.cli import main\n"
        f"for words in [[], *([name] for name in {COMMANDS})]:\n"
        "    try:\n"
        "        main([*words, '--help'])\n"
        "    except SystemExit:\n"
        "        print('loaded:', *sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = [set(line.split()) for line in run.stdout.splitlines() if "loaded:" in line]
    assert len(loaded) == len(COMMANDS) + 1 and "argparse" in loaded[0]
    assert not {"torch", "numpy", "matplotlib", "jinja2"} & set().union(*loaded)


def test_the_installed_command_exits_with_2_on_bad_input(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tensormask_edu",
        "evaluate",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (
        run.returncode == 2
        and run.stderr.startswith("error: checkpoint: ")
        and "Traceback" not in run.stderr
    )


def test_configurations_in_checkpoints_are_plain_json(world):
    stored = read_json(world / "run" / "checkpoint" / "config.json")
    assert stored["input"] == json.loads(json.dumps(to_json(InputConfig())))
