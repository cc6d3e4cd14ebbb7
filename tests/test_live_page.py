"""The explorer's JavaScript against the NumPy reference; the page itself in a browser."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from tensormask_edu import reference
from tensormask_edu.commands import check_ops
from tensormask_edu.config import ModelConfig, from_json
from tensormask_edu.detector import inference, losses
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.masks import iou
from tensormask_edu.reference.assign import assign
from tensormask_edu.weights.checkpoint import load_checkpoint, weights_sha256

EXPLORER = ROOT / "docs" / "explorer"
OPERATORS = EXPLORER / "src" / "operators.js"
STORED_IOU = 0.01  # float16 logits at the threshold, three decimals
PATIENCE_S = 1500  # for a script that hangs; a slow machine needs ten minutes
# JavaScript computes in float64, as the reference does: what is left are orders of summation.
JS_OP = 1e-6

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="no node")


def node(*words: Path | str) -> str:
    """What a script prints; its errors are the test's."""
    run = subprocess.run(
        ["node", *map(str, words)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- the operators ----------------------------------------------------------------------------


def case_table(operator: str) -> list[tuple[dict, np.ndarray]]:
    """The cases of check-ops as JSON, and what the reference says; "": of all operators."""
    cases = []
    for number, case in enumerate(check_ops.CASES):
        if operator not in ("", case.op):
            continue
        sample = check_ops.sample(number, torch.float64)
        given = {"op": case.op, "shape": case.shape, "arguments": case.arguments}
        given |= {"x": sample.x.ravel().tolist(), "why": case.why}
        if sample.index is not None:
            given["index"] = sample.index.tolist()
        cases.append((given, sample.expected))
    return cases


def differences(operators: Path, folder: Path, operator: str = "") -> dict[str, float]:
    """The largest difference of each case, by its operator and reason."""
    cases = case_table(operator)
    (folder / "cases.json").write_text(json.dumps([given for given, _ in cases]))
    script = EXPLORER / "tests" / "operators.mjs"
    results = json.loads(node(script, operators, folder / "cases.json"))
    found = {}
    for (case, expected), result in zip(cases, results, strict=True):
        name = f"{case['op']}: {case['why']}"
        assert len(result) == expected.size, name
        found[name] = np.abs(expected.ravel() - result).max(initial=0)
    return found


@needs_node
def test_the_operators_of_the_page_are_the_reference_on_every_case(tmp_path):
    for case, difference in differences(OPERATORS, tmp_path).items():
        assert difference <= JS_OP, case


@needs_node
@pytest.mark.parametrize(("shape", "lam"), [((1, 3, 2, 6, 7), 2), ((2, 2, 3, 5, 4), 3)])
def test_nearest_reading_is_the_reference_too(shape, lam, tmp_path):
    x = np.random.default_rng(0).normal(size=shape)
    fine = reference.align2nat(reference.up_nearest(x, lam), pad_value=-6.0)
    expected = reference.subsample(fine, lam)
    given = {"op": "swap_nearest", "shape": shape, "x": x.ravel().tolist()}
    given["arguments"] = {"lam": lam, "pad_value": -6.0}
    (tmp_path / "cases.json").write_text(json.dumps([given]))
    script = EXPLORER / "tests" / "operators.mjs"
    (result,) = json.loads(node(script, OPERATORS, tmp_path / "cases.json"))
    np.testing.assert_allclose(result, expected.ravel(), rtol=0, atol=JS_OP)


# What is changed in operators.js, and the operators that then are wrong.
WRONG_TAPS = {
    "half a cell": ("(1 - lam * V) / 2)", "(2 - lam * V) / 2)", "swap_align2nat"),
    "corner centres": ("(2 * v + 1 - lam) / (", "(2 * v) / (", "swap_align2nat"),
    "round for floor": ("Math.floor(coordinate)", "Math.round(coordinate)", "align2nat"),
    "pad of zero": ("outside * padValue", "outside * 0", "swap_align2nat"),
}


@needs_node
@pytest.mark.parametrize("mistake", WRONG_TAPS)
def test_a_wrong_tap_is_caught(mistake, tmp_path):
    right, wrong, op = WRONG_TAPS[mistake]
    text = OPERATORS.read_text(encoding="utf-8")
    assert text.count(right) == 1
    changed = tmp_path / "operators.mjs"
    changed.write_text(text.replace(right, wrong), encoding="utf-8")
    assert max(differences(changed, tmp_path, op).values()) > 1000 * JS_OP


# --- the assignment ---------------------------------------------------------------------------


@needs_node
def test_the_assignment_of_the_page_is_the_reference(tmp_path):
    random = np.random.default_rng(0)
    windows = random.uniform(0, 100, (400, 2))
    sides = random.choice([20.0, 28.0, 40.0, 56.0], 400)
    windows = np.concatenate([windows, windows + sides[:, None]], axis=1)  # (400, 4)
    # Objects in the middle of every tenth window, so that some rules hold and some fail
    sizes = sides[::10, None] * random.uniform(0.3, 1.1, (40, 2)) / 2
    centres = (windows[::10, :2] + windows[::10, 2:]) / 2 + random.uniform(-4, 4, (40, 2))
    boxes = np.concatenate([centres - sizes, centres + sizes], axis=1)  # (40, 4)
    units, slacks = sides / 5, sides / 7
    expected = assign(windows, units, slacks, boxes, 16.0)
    assert 5 < (expected >= 0).sum() < 400
    values = [array.tolist() for array in (windows, units, slacks, boxes)]
    script = tmp_path / "assign.mjs"
    module = json.dumps((EXPLORER / "src" / "assign.js").as_uri())
    script.write_text(
        f"import {{ assign }} from {module};\n"
        f"console.log(JSON.stringify(assign(...{json.dumps([*values, 16.0])})));\n"
    )
    assert json.loads(node(script)) == expected.tolist()


# --- stored outputs of trained heads ----------------------------------------------------------


@needs_node
def test_the_page_reads_float16_as_numpy_does():
    bits = np.arange(0, 2**16, 3, dtype="<u2")  # of both signs; a command has a longest word
    values = bits.view("<f2")
    values = values[np.isfinite(values)]
    text = base64.b64encode(values.tobytes()).decode()
    packed = (EXPLORER / "src" / "packed.js").as_uri()
    script = f"import({packed!r}).then(m => console.log(JSON.stringify(m.float16({text!r}))))"
    np.testing.assert_array_equal(json.loads(node("-e", script)), values.astype(np.float64))


def test_the_stored_masks_of_trained_heads_have_the_iou_that_is_shown():
    objects = json.loads((EXPLORER / "src" / "heads.json").read_text())
    assert len(objects) == 10
    for each in objects:
        size = each["size"]
        truth = np.unpackbits(np.frombuffer(base64.b64decode(each["truth"]), np.uint8))
        truth = torch.from_numpy(truth.reshape(1, size, size)).bool()
        for head in each["heads"].values():
            bins = np.frombuffer(base64.b64decode(head["bins"]), "<f2").astype(np.float32)
            logits = torch.from_numpy(bins).view(1, 15, 15)
            masks = [losses.WindowMasks(torch.tensor([0]), logits)]
            drawn = inference.paste(masks, torch.tensor([each["window"]]), size, size)
            assert abs(float(iou(drawn, truth)[0]) - head["iou"]) <= STORED_IOU


# --- the page ---------------------------------------------------------------------------------

BUILT, DRIVER = EXPLORER / "built", EXPLORER / "node_modules" / "playwright-core"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BOX_PX = SCORE = 1e-3  # float32 on both sides, sums in another order
MASK_SHARE = 1e-3  # of a picture's pixels: those that lie on the threshold
PAGE_BYTES = 300_000  # without the model and the runtime
PACKED_BYTES = 7_000_000  # of the two
SINGLE_BYTES = 25_000_000
MEMORY_GROWTH = 1.2
NARROW_PX = 390


def why_no_browser() -> str:
    """Why no script can drive a browser here; "" where one can."""
    if not shutil.which("node"):
        return "no node"
    if not CHROMIUM:
        return "no Chromium: install your system's"
    return "" if DRIVER.is_dir() else "the explorer is not built: make explorer"


def why_not() -> str:
    """Why the page cannot be opened here; "" where it can."""
    is_built = (BUILT / "index.html").is_file()
    return why_no_browser() or ("" if is_built else "the explorer is not built: make explorer")


def in_browser(test):
    """A test of the built page."""
    return pytest.mark.long(pytest.mark.skipif(bool(why_not()), reason=why_not())(test))


@pytest.fixture(scope="module")
def browsed(tmp_path_factory) -> dict:
    """What happened to the built page in a browser, see `docs/explorer/tests/browser.mjs`."""
    report = tmp_path_factory.mktemp("browser") / "report.json"
    node(EXPLORER / "tests" / "browser.mjs", BUILT, str(CHROMIUM), report)
    return json.loads(report.read_text())


@in_browser
def test_the_page_asks_nobody_else_and_reports_no_error(browsed):
    ours = (browsed["origin"], "file:", "blob:", "data:")
    outside = [url for url in browsed["requests"] if not url.startswith(ours)]
    assert browsed["requests"] and not outside
    assert not browsed["console"] and not browsed["errors"]


@in_browser
def test_stored_results_come_before_the_model(browsed):
    assert browsed["storedFirst"]


@in_browser
@torch.inference_mode()
def test_what_the_page_finds_is_what_pytorch_finds(browsed):
    pictures, metadata = browsed["numbers"]["found"], browsed["numbers"]["metadata"]
    shipped, _ = load_checkpoint("shapes")
    if weights_sha256(shipped) != metadata["weights_sha256"]:
        pytest.skip("the explorer is built with another model: make explorer")
    model = TensorMask(from_json(ModelConfig, metadata["model_config"])).eval()
    model.load_state_dict(shipped.state_dict())
    assert len(pictures) == 20 and sum(len(each["detections"]) for each in pictures) > 60
    for picture in pictures:
        rgb = np.frombuffer(base64.b64decode(picture["rgb"]), np.uint8).reshape(128, 128, 3)
        image = torch.from_numpy(rgb.transpose(2, 0, 1) / np.float32(255))
        (expected,) = model([image])
        found = picture["detections"]
        assert [d["label"] for d in found] == expected["labels"].tolist()
        scores, boxes = ([d[name] for d in found] for name in ("score", "box"))
        np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=SCORE)
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), expected["boxes"], atol=BOX_PX)
        for detection, mask in zip(found, expected["masks"].numpy(), strict=True):
            bits = np.frombuffer(base64.b64decode(detection["mask"]), np.uint8)
            assert (bits.reshape(128, 128) != mask).mean() <= MASK_SHARE


@in_browser
def test_gestures_of_all_kinds_leave_the_page_alive(browsed):
    """200 at random, then shapes of no size, 40 shapes, a large photo, a file of no picture."""
    extremes = browsed["extremes"]
    assert browsed["stateAfter"] == "live"
    assert browsed["hits"] > 2 * browsed["misses"]
    assert extremes["shapes"] == 40
    assert "6000 x 4000 px to 128 px" in extremes["photo"]
    assert "is no picture that this browser reads" in extremes["noPicture"]
    assert browsed["memoryAfter"] <= MEMORY_GROWTH * browsed["memoryBefore"]


@in_browser
def test_a_chosen_shape_opens_its_own_mask(browsed):
    kinds = [kind for kind, _ in browsed["choices"]]
    assert sorted(kinds) == [0, 1, 3]
    assert [label for _, label in browsed["choices"]] == kinds


@in_browser
def test_what_the_tour_speaks_of_is_in_sight_on_a_phone(browsed):
    assert len(browsed["tour"]) == 9
    assert min(browsed["tour"]) > 0.95


@in_browser
def test_a_frame_shows_one_part_and_loads_the_model_only_for_what_needs_it(browsed):
    frames = browsed["frames"]
    assert frames == {
        "shear": {"places": [".shear-part"], "model": False},
        "lam": {"places": ["#picture", ".lam-part"], "model": False},
        "assignment": {"places": ["#picture", ".rules"], "model": False},
        "walls": {"places": ["#picture", ".walls", ".shear-part"], "model": True},
    }


@in_browser
def test_the_page_fits_a_narrow_screen(browsed):
    assert set(browsed["widths"].values()) == {NARROW_PX}


@in_browser
def test_without_webassembly_the_page_says_what_to_do(browsed):
    assert "does not let the page run WebAssembly" in browsed["withoutWasm"]


@in_browser
def test_one_file_opens_from_disk(browsed):
    assert browsed["fromDisk"] == "live"


@in_browser
def test_the_page_is_light():
    size = {path.name: path.stat().st_size for path in BUILT.iterdir()}
    assert size["index.html"] + size["page.js"] + size["page.css"] <= PAGE_BYTES
    assert size["runtime.wasm.gz"] + size["model.onnx.gz"] <= PACKED_BYTES
    assert size["tensormask.html"] <= SINGLE_BYTES
