"""Pictures and instances: the overlap world, COCO folders and their quirks, augmentation."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils
from tolerances import RESIZED, RESIZED_EXACTLY
from torch import Generator
from torchvision.transforms.v2.functional import resize
from trainer import write_pictures

from tensormask_edu.base.errors import InputError
from tensormask_edu.config import RECIPES, AugmentConfig, InputConfig
from tensormask_edu.data import pictures, shapes
from tensormask_edu.data import prepare as preparing
from tensormask_edu.data.augment import Augment, change_light, flip, flip_vertical, transpose
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.prepare import input_size
from tensormask_edu.data.stream import TrainingSet, collate, generator_at, grouped, sample_index
from tensormask_edu.data.truth import Truth, crop, crop_truth, resize_truth
from tensormask_edu.masks import decode, encode, to_rle
from tensormask_edu.masks import tight_boxes as tight_boxes_of_arrays

# What is mended is said, and tested, in test_strangers.py
pytestmark = pytest.mark.filterwarnings("ignore::tensormask_edu.base.errors.InputWarning")

LIGHT = 1e-6  # float32 arithmetic on values in [0, 1]
# A box scaled exactly and a mask scaled to the nearest pixel round apart by at most this.
BOX_PX = 1.0


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(tight_boxes_of_arrays(masks.numpy()))


def read_image(path: Path) -> torch.Tensor:
    return torch.from_numpy(pictures.read_image(path))


def prepare(image: torch.Tensor, config: InputConfig) -> torch.Tensor:
    return torch.from_numpy(preparing.prepare(image.numpy(), config))


# --- the overlap world ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    assert shapes.write_shapes(folder, train=12, val=5, size_px=96, seed=3, progress=False)
    return folder


def test_a_shape_depends_on_seed_split_and_index_only():
    image, masks, labels = shapes.draw(0, "train", 7)
    again = shapes.draw(0, "train", 7)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(masks, again[1])
    assert labels == again[2]
    for seed, split, index in ((1, "train", 7), (0, "val", 7), (0, "train", 8)):
        assert not np.array_equal(image, shapes.draw(seed, split, index)[0])


def test_the_pictures_of_a_seed_stay_what_they_are():
    digest, means = hashlib.sha256(), []
    for index in range(20):
        image, masks, labels = shapes.draw(0, "train", index, 96)
        digest.update(masks.tobytes() + bytes(labels))
        means.append(image.mean())
    same = digest.hexdigest().startswith("ce35e79b6a2452cc")
    # a cosine may round otherwise on another machine, and a few pixels with it
    assert same and np.mean(means) == pytest.approx(114.346964, abs=1e-3), "raise `RECIPE`"


def test_a_larger_overlap_world_begins_with_the_smaller_one(world: Path, tmp_path: Path):
    shapes.write_shapes(tmp_path, train=14, val=5, size_px=96, seed=3, progress=False)
    small, large = CocoFolder(world, "train"), CocoFolder(tmp_path, "train")
    for index in range(len(small)):
        assert torch.equal(small.image(index), large.image(index))
        assert torch.equal(small.truth(index)["masks"], large.truth(index)["masks"])


def test_shapes_obey_the_drop_rules_and_do_not_share_pixels():
    counts = []
    for index in range(60):
        _, masks, labels = shapes.draw(0, "val", index)
        assert len(masks) == len(labels) <= shapes.SHAPES_PER_IMAGE[1]
        assert masks.sum(axis=0).max(initial=0) <= 1
        assert (masks.sum(axis=(1, 2)) >= shapes.MIN_VISIBLE_PX).all()
        counts.append(len(masks))
    assert 3.2 < np.mean(counts) < 4.0  # 2 to 6 were drawn, few are hidden


def test_whole_shapes_hide_each_other_as_they_are_drawn():
    for index in range(5):
        whole, kinds = shapes.whole(3, "val", index, 64)
        drawn, labels = shapes.draw(3, "val", index, 64)[1:]
        seen = [part & ~whole[k + 1 :].any(0) for k, part in enumerate(whole)]
        assert len(whole) == len(kinds) >= len(labels)
        for mask in drawn:  # those that are too well hidden are dropped
            assert any(np.array_equal(mask, part) for part in seen)


def test_a_shape_that_is_mostly_hidden_is_not_annotated(monkeypatch: pytest.MonkeyPatch):
    kept = sum(len(shapes.draw(0, "val", index)[1]) for index in range(40))
    monkeypatch.setattr(shapes, "MIN_VISIBLE_SHARE", 0.0)
    monkeypatch.setattr(shapes, "MIN_VISIBLE_PX", 1)
    everything = sum(len(shapes.draw(0, "val", index)[1]) for index in range(40))
    assert kept < everything


@pytest.mark.parametrize("kind", range(4), ids=shapes.CLASS_NAMES)
def test_an_outline_fills_its_box(kind: int):
    points = shapes.outline(kind, long_px=40.0, aspect=0.6, angle=0.0)
    np.testing.assert_allclose(points.max(axis=0) - points.min(axis=0), [40, 24], atol=1e-9)
    turned = shapes.outline(kind, 40.0, 0.6, np.pi / 2)
    np.testing.assert_allclose(np.ptp(turned, axis=0), [24, 40], atol=1e-9)


def test_the_written_folder_holds_what_was_drawn(world: Path):
    dataset = CocoFolder(world, "val", keep_empty=True)
    assert dataset.class_names == shapes.CLASS_NAMES
    assert dataset.category_ids == [1, 2, 3, 4]
    assert dataset.image_ids == [1, 2, 3, 4, 5]
    for index, (image, truth) in enumerate(dataset):
        drawn, masks, labels = shapes.draw(3, "val", index, 96)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), drawn)
        np.testing.assert_array_equal(truth["masks"].numpy(), masks)
        assert truth["labels"].tolist() == labels
        assert torch.equal(truth["boxes"], tight_boxes(truth["masks"]))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (200, 301)])  # the last: beyond 64 KiB
def test_a_stored_picture_is_a_whole_png(size: tuple[int, int], tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shapes._save(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        file.verify()  # the checksum of every chunk
    with Image.open(tmp_path / "a.png") as file:
        assert (file.format, file.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(file), image)


def test_annotations_store_area_box_and_compressed_masks(world: Path):
    for annotation in json.loads((world / "instances_train.json").read_text())["annotations"]:
        rle = annotation["segmentation"]
        assert isinstance(rle["counts"], str)
        assert annotation["area"] == mask_utils.area(rle)
        assert annotation["bbox"] == mask_utils.toBbox(rle).tolist()


def test_writing_the_same_shapes_again_does_nothing(world: Path, capsys: Any):
    before = (world / "instances_train.json").stat().st_mtime_ns
    assert not shapes.write_shapes(world, train=12, val=5, size_px=96, seed=3)
    assert (world / "instances_train.json").stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().out


def test_other_shapes_are_not_written_over_a_data_set(world: Path):
    message = "folder: expected a new folder, got .* another data set"
    with pytest.raises(InputError, match=message):
        shapes.write_shapes(world, train=12, val=5, size_px=96, seed=4, progress=False)


def test_an_interrupted_writer_leaves_no_data_set(tmp_path: Path, monkeypatch: Any):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shapes, "write_json", interrupt)
        shapes.write_shapes(tmp_path, train=2, val=1, size_px=32, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(InputError, match="folder: expected instances_train.json"):
        CocoFolder(tmp_path, "train")
    assert shapes.write_shapes(tmp_path, train=2, val=1, size_px=32, progress=False)


@pytest.mark.parametrize(
    ("name", "value"), [("train", 0), ("val", 0), ("size_px", 8), ("seed", -1)]
)
def test_numbers_out_of_range_are_named(name: str, value: int, tmp_path: Path):
    with pytest.raises(InputError, match=f"{name}: expected at least"):
        shapes.write_shapes(tmp_path / "new", **{name: value})
    assert not (tmp_path / "new").exists()


# --- COCO folders -----------------------------------------------------------------------------

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 6.0, 2.0, 6.0]  # columns 2..7, rows 2..5
CORNER = [12.0, 7.0, 15.0, 7.0, 15.0, 9.0, 12.0, 9.0]
COLUMN = np.zeros((10, 16), dtype=bool)
COLUMN[1:4, 5] = True


def quirks() -> dict[str, Any]:
    """A ground truth with every quirk.

    Picture 4 has polygons, 9 has masks and a crowd, 2 has nothing.
    """
    polygons = [SQUARE, CORNER]
    uncompressed = {"size": [10, 16], "counts": [51, 3, 106]}
    crowd = {"size": [10, 16], "counts": [0, 160]}
    annotations = [
        {"image_id": 4, "category_id": 90, "bbox": [2, 2, 14.5, 7.5], "segmentation": polygons},
        {"image_id": 4, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 4]]},
        {"image_id": 9, "category_id": 7, "segmentation": uncompressed},
        {
            "image_id": 9,
            "category_id": 3,
            "bbox": [0, 0, 1, 1],
            "segmentation": encode(COLUMN[None])[0],
        },
        {"image_id": 9, "category_id": 3, "iscrowd": 1, "segmentation": crowd},
    ]
    return {
        "images": [
            {"id": 4, "file_name": "a.png", "height": 10, "width": 16},
            {"id": 9, "file_name": "b.png", "height": 10, "width": 16},
            {"id": 2, "file_name": "c.png", "height": 5, "width": 7},
        ],
        "categories": [
            {"id": 90, "name": "cat"},
            {"id": 3, "name": "dog"},
            {"id": 7, "name": "cow"},
        ],
        "annotations": [{"id": n} | a for n, a in enumerate(annotations, start=1)],
    }


def write_folder(
    folder: Path,
    ground_truth: Any,
    json_path: str = "instances_val.json",
    images: str = "images",
) -> Path:
    (folder / images).mkdir(parents=True, exist_ok=True)
    for image in quirks()["images"]:
        picture = Image.new("RGB", (image["width"], image["height"]), "red")
        picture.save(folder / images / image["file_name"])
    (folder / json_path).parent.mkdir(exist_ok=True)
    (folder / json_path).write_text(json.dumps(ground_truth))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, quirks())


@pytest.mark.parametrize("cache", [False, True], ids=["read", "cached"])
def test_quirks_of_coco_are_understood(folder: Path, cache: bool):
    dataset = CocoFolder(folder, "val", cache=cache)
    assert dataset.category_ids == [3, 7, 90]
    assert dataset.class_names == ("dog", "cow", "cat")
    assert dataset.image_ids == [4, 9]
    for _ in range(2):  # the second time from the cache
        _, polygons = dataset[0]
        assert polygons["labels"].tolist() == [2]
        # the annotation's, clipped to 16 px
        assert polygons["boxes"].tolist() == [[2, 2, 16, 9.5]]
        assert polygons["masks"].sum() == 6 * 4 + 3 * 2
        _, masks = dataset[1]
        assert masks["labels"].tolist() == [1, 0]  # without the crowd
        assert masks["boxes"].tolist() == [[5, 1, 6, 4]] * 2  # tight, whatever bbox says
        np.testing.assert_array_equal(masks["masks"].numpy(), [COLUMN, COLUMN])
        assert masks["image_id"] == 9


def test_pictures_without_instances_are_kept_on_request(folder: Path):
    dataset = CocoFolder(folder, "val", keep_empty=True)
    assert dataset.image_ids == [4, 9, 2]
    image, truth = dataset[2]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 5, 7))
    assert (tuple(truth["boxes"].shape), truth["boxes"].dtype) == ((0, 4), torch.float32)
    assert (tuple(truth["labels"].shape), truth["labels"].dtype) == ((0,), torch.int64)
    assert (tuple(truth["masks"].shape), truth["masks"].dtype) == ((0, 5, 7), torch.bool)


def test_polygons_come_on_request(folder: Path):
    ground_truth = quirks()
    del ground_truth["annotations"][2:4]
    write_folder(folder, ground_truth)
    truth = CocoFolder(folder, "val", polygons=True).truth(0)
    assert [points.tolist() for points in truth["polygons"][0]] == [SQUARE, CORNER]
    assert "polygons" not in CocoFolder(folder, "val").truth(0)


def test_polygons_are_refused_where_masks_are_stored(folder: Path):
    message = "polygons: expected a data set of polygons, got annotation 3 stored"
    with pytest.raises(InputError, match=message):
        CocoFolder(folder, "val", polygons=True)


@pytest.mark.parametrize(
    ("json_path", "images"),
    [
        ("instances_val.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val.json", "images"),
        ("annotations/instances_val.json", "val"),
    ],
)
def test_every_layout_is_found(json_path: str, images: str, tmp_path: Path):
    dataset = CocoFolder(write_folder(tmp_path, quirks(), json_path, images), "val")
    assert dataset.ground_truth_path == tmp_path / json_path
    assert dataset.path(0) == tmp_path / images / "a.png"


def test_a_region_is_the_crop_of_the_whole(folder: Path):
    dataset = CocoFolder(folder, "val")
    region = (3, 5, 6, 20)  # reaches beyond the right edge
    part, whole = dataset.truth(0, region), dataset.truth(0)
    assert torch.equal(part["masks"], crop(whole["masks"], region))
    assert part["masks"].shape == (1, 6, 20)
    assert part["boxes"].tolist() == [[0, 0, 10, 6]]
    first_rows = dataset.truth(0, (0, 0, 2, 16))
    assert len(first_rows["labels"]) == 0  # nothing of it is there


FIRST, COMPRESSED = ["annotations", 0], ["annotations", 3, "segmentation"]
BREAKS = {  # what is broken: its place in the JSON, the value put there, what the error says
    "annotation of image null": ([*FIRST, "image_id"], None, "annotation 1: .*'image_id'"),
    "annotation of an unknown category": (
        [*FIRST, "category_id"], 1, "annotation 1 .* unknown category 1",
    ),
    "image of zero size": (
        ["images", 1, "height"], 0, "image 9 of at least 1 x 1 pixels, got height 0",
    ),
    "image larger than any that is read": (
        ["images", 1, "height"], 10**18, "image 9 of at most 178956970 pixels, got height 1000",
    ),
    "image without a name": (
        ["images", 1, "file_name"], None, "image 9: expected a field 'file_name'",
    ),
    "image id twice": (["images", 1, "id"], 4, "different image ids, got 4 twice"),
    "category id twice": (["categories", 0, "id"], 3, "different category ids"),
    "no categories": (["categories"], [], "at least one category"),
    "no images list": (["images"], None, "a JSON object with the lists images"),
    "missing picture": (
        ["images", 0, "file_name"], "gone.png", "image file: expected gone.png .*, got no such",
    ),
    "odd polygon": (
        [*FIRST, "segmentation"], [[1, 2, 3, 4, 5, 6, 7]],
        "annotation 1: expected RLE or polygons",
    ),
    "text for polygons": (
        [*FIRST, "segmentation"], "all", "annotation 1: expected RLE or polygons",
    ),
    "mask of another size": ([*COMPRESSED, "size"], [16, 10], r"size .* = \[10, 16\]"),
    "run lengths too short": (
        ["annotations", 2, "segmentation", "counts"], [51, 3], "counts that fill 160 pixels",
    ),
    "compressed runs too short": (
        [*COMPRESSED, "counts"], "c15", "annotation 4: .* fill 160 pixels",
    ),
    "run lengths broken off": (
        [*COMPRESSED, "counts"], "0o", "annotation 4: .* fill 160 pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place, value, message", BREAKS.values(), ids=BREAKS)
def test_broken_ground_truth_is_one_clear_error(
    place: list[Any], value: Any, message: str, tmp_path: Path
):
    ground_truth: Any = quirks()
    inner = ground_truth
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(InputError, match=message):
        CocoFolder(write_folder(tmp_path, ground_truth), "val")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="folder: expected an existing folder, got .*nowhere"):
        CocoFolder(tmp_path / "nowhere", "val")


def test_a_missing_split_names_the_files_looked_for(folder: Path):
    message = "expected instances_test.json or annotations/.* 'test'"
    with pytest.raises(InputError, match=message):
        CocoFolder(folder, "test")


def test_a_folder_without_pictures_is_named(tmp_path: Path):
    (tmp_path / "instances_val.json").write_text(json.dumps(quirks()))
    with pytest.raises(InputError, match="folder: expected pictures in images/"):
        CocoFolder(tmp_path, "val")


def test_broken_json_is_named(folder: Path):
    (folder / "instances_val.json").write_text('{"images": [')
    message = "ground truth: expected valid JSON, got .*instances_val.json"
    with pytest.raises(InputError, match=message):
        CocoFolder(folder, "val")


def test_a_picture_of_another_size_than_stated_is_an_error(folder: Path):
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")
    message = r"image: expected \(height, width\) \(10, 16\) as in the JSON, got .*a.png"
    with pytest.raises(InputError, match=message):
        CocoFolder(folder, "val").image(0)


@pytest.mark.parametrize("name", ["coco-small", "nuclei-dsb2018"])
def test_every_picture_of_a_real_data_set_loads(shared: Path, name: str):
    splits = [
        CocoFolder(shared / "data" / name, split, keep_empty=True) for split in ("train", "val")
    ]
    assert sum(map(len, splits)) == {"coco-small": 123, "nuclei-dsb2018": 308}[name]
    for dataset in splits:
        for index in range(0, len(dataset), 1 if name == "coco-small" else 20):
            image, truth = dataset[index]
            assert image.shape[1:] == truth["masks"].shape[1:] == dataset.size(index)
            assert len(truth["boxes"]) == len(truth["labels"]) == len(truth["masks"])
            assert (truth["labels"] < len(dataset.class_names)).all()


# --- picture files ----------------------------------------------------------------------------


def _gradient() -> Image.Image:
    return Image.fromarray(np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "1", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(mode: str, tmp_path: Path):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    _gradient().convert(mode).save(path)
    image = read_image(path)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 6, 4))
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(image.numpy(), expected)


def test_palette_with_transparency_reads_without_a_warning(tmp_path: Path):
    _gradient().convert("P").save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert read_image(tmp_path / "a.png").shape == (3, 6, 4)


def test_sixteen_bit_pictures_use_their_own_range(tmp_path: Path):
    values = np.array([[1000, 1510], [2020, 2530]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 85], [170, 255]]


def test_pictures_are_turned_as_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    _gradient().save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png")[0].numpy(), np.rot90(np.asarray(_gradient()), -1)
    )


def test_files_that_are_no_pictures_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="image: expected an existing file, got .*none.png"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    message = "image: expected a picture that Pillow reads, got .*text.png"
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "text.png")


# --- contrast and size ------------------------------------------------------------------------


def random_image(height: int = 20, width: int = 30, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        256, (3, height, width), generator=Generator().manual_seed(seed), dtype=torch.uint8
    )


def test_prepare_divides_by_255_and_changes_nothing_else():
    image = random_image()
    torch.testing.assert_close(prepare(image, InputConfig()), image / 255, atol=LIGHT, rtol=0)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (InputConfig(enlarge=2.0), (40, 60)),
        (InputConfig(enlarge=0.5), (10, 15)),
        (InputConfig(short_side_px=100), (100, 150)),
        (InputConfig(short_side_px=100, long_side_px=120), (80, 120)),
        (InputConfig(enlarge=0.001), (1, 1)),
    ],
)
def test_prepare_resizes(config: InputConfig, size: tuple[int, int]):
    prepared = prepare(random_image(), config)
    assert tuple(prepared.shape) == (3, *size) == (3, *input_size(20, 30, config))
    assert prepared.dtype == torch.float32
    assert 0 <= prepared.min() and prepared.max() <= 1


@pytest.mark.parametrize(
    ("before", "after", "limit"),
    [
        ((31, 43), (37, 53), RESIZED),  # a little up
        ((31, 43), (101, 97), RESIZED),  # far up, by two factors
        ((31, 43), (13, 19), RESIZED),  # down
        ((31, 43), (61, 17), RESIZED),  # up in height, down in width
        ((33, 47), (1, 1), RESIZED),
        ((427, 640), (800, 1199), RESIZED),  # a picture of COCO
        ((31, 43), (62, 86), RESIZED_EXACTLY),
    ],
)
def test_resizing_is_torchvisions(
    before: tuple[int, int], after: tuple[int, int], limit: float
):
    """Models were trained on pictures that torchvision resized, and see Pillow's."""
    image = random_image(*before) / 255
    found = torch.from_numpy(preparing.resize(image.numpy(), after))
    expected = resize(image, list(after), antialias=True)
    torch.testing.assert_close(found, expected, atol=limit, rtol=0)
    exact = resize(image.double(), list(after), antialias=True).float()
    torch.testing.assert_close(found, exact, atol=RESIZED_EXACTLY, rtol=0)


def test_stretch_maps_the_percentiles_to_zero_and_one():
    values = torch.arange(101, dtype=torch.uint8) + 50
    image = values.repeat(3, 2, 1)  # (3, 2, 101): every value of 50..150 alike often
    prepared = prepare(image, InputConfig(stretch_percentiles=(10.0, 90.0)))
    expected = ((torch.arange(101) - 10) / 80).clamp(0, 1)
    torch.testing.assert_close(prepared[0, 0], expected, atol=0.013, rtol=0)
    assert prepared.min() == 0 and prepared.max() == 1


def test_a_picture_of_one_colour_stretches_to_black():
    flat = torch.full((3, 4, 4), 77, dtype=torch.uint8)
    prepared = prepare(flat, InputConfig(stretch_percentiles=(0.5, 99.8)))
    assert prepared.tolist() == torch.zeros(3, 4, 4).tolist()


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)], ids=["float", "2-D"]
)
def test_prepare_rejects_other_tensors(image: torch.Tensor):
    with pytest.raises(InputError, match=r"image: expected uint8 \(3, H, W\)"):
        prepare(image, InputConfig())


# --- augmentation -----------------------------------------------------------------------------


def random_truth(seed: int, count: int = 5, height: int = 20, width: int = 30) -> Truth:
    """Rectangles with their tight boxes, and the same as polygons."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), dtype=bool)
    for mask in masks:
        y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
        mask[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
    boxes = tight_boxes(torch.from_numpy(masks))
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
    return {
        "boxes": boxes,
        "labels": torch.arange(count),
        "masks": torch.from_numpy(masks),
        "polygons": [[c] for c in corners],
    }


def assert_boxes_fit(truth: Truth, tolerance_px: float = 0.0) -> None:
    tight = tight_boxes(truth["masks"])
    torch.testing.assert_close(truth["boxes"], tight, atol=tolerance_px, rtol=0)


@pytest.mark.parametrize("change", [flip, flip_vertical, transpose])
def test_symmetries_move_boxes_masks_and_polygons_together(change: Any):
    image, truth = random_image(), random_truth(1)
    changed, moved = change(image, truth)
    assert_boxes_fit(moved)
    redrawn = [to_rle(polygons, *changed.shape[1:]) for polygons in moved["polygons"]]
    masks = decode(redrawn, tuple(changed.shape[1:]))
    np.testing.assert_array_equal(masks, moved["masks"].numpy())
    for before, after in zip(truth["masks"], moved["masks"], strict=True):
        assert torch.equal(changed[:, after].sort().values, image[:, before].sort().values)
    back, again = change(changed, moved)
    assert torch.equal(back, image)
    assert torch.equal(again["boxes"], truth["boxes"])
    assert torch.equal(again["masks"], truth["masks"])


@pytest.mark.parametrize("size", [(40, 60), (20, 45), (31, 47), (13, 20)])
def test_resized_boxes_stay_within_a_pixel_of_their_masks(size: tuple[int, int]):
    truth = random_truth(2)
    resized = resize_truth(truth, size)
    assert_boxes_fit(resized, BOX_PX)
    scale = torch.tensor([size[1] / 30, size[0] / 20] * 2)
    torch.testing.assert_close(resized["boxes"], truth["boxes"] * scale)
    scaled = truth["polygons"][0][0].reshape(4, 2).dot(np.diag(scale[:2])).ravel()
    np.testing.assert_allclose(resized["polygons"][0][0], scaled, rtol=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (10, 10), (31, 47), (7, 13), (60, 45), (1, 1)])
def test_a_resized_mask_shows_the_pixel_that_holds_each_new_centre(size: tuple[int, int]):
    truth = random_truth(6)
    resized = resize_truth(truth, size)["masks"]
    assert resized.shape[1:] == size
    for y, x in np.ndindex(*size):
        # in quarters of thirds and the like, without a rounding: floor((2k + 1) old / 2 new)
        row, column = (2 * y + 1) * 20 // (2 * size[0]), (2 * x + 1) * 30 // (2 * size[1])
        assert torch.equal(resized[:, y, x], truth["masks"][:, row, column])


def test_resizing_to_whole_multiples_repeats_pixels():
    truth = random_truth(3)
    resized = resize_truth(truth, (40, 90))["masks"]
    assert torch.equal(resized, truth["masks"].repeat_interleave(2, 1).repeat_interleave(3, 2))


def test_a_crop_cuts_boxes_and_drops_what_is_outside():
    truth = random_truth(4, count=12)
    cropped = crop_truth(truth, (5, 8, 9, 11))
    assert_boxes_fit(cropped)
    visible = crop(truth["masks"], (5, 8, 9, 11)).flatten(1).any(1)
    assert 0 < visible.sum() < 12
    assert cropped["labels"].tolist() == visible.nonzero().ravel().tolist()
    assert len(cropped["polygons"]) == int(visible.sum())
    first = int(cropped["labels"][0])
    moved_back = cropped["polygons"][0][0] + np.tile([8, 5], 4)
    np.testing.assert_array_equal(moved_back, truth["polygons"][first][0])


@pytest.mark.parametrize(
    "region", [(-3, -2, 10, 10), (15, 25, 10, 10), (-9, 0, 4, 4), (0, 40, 5, 5)]
)
def test_a_crop_beyond_the_picture_is_padded_with_zeros(region: tuple[int, int, int, int]):
    image = random_image() | 1
    top, left, height, width = region
    padded = torch.nn.functional.pad(image, (50, 50, 50, 50))
    rows, columns = slice(top + 50, top + 50 + height), slice(left + 50, left + 50 + width)
    assert torch.equal(crop(image, region), padded[:, rows, columns])


EVERYTHING = RECIPES["cells"].train.augment


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 8, 16, 40]),
    st.sampled_from([(1.0, 1.0), (0.5, 0.9), (1.2, 2.5)]),
    st.booleans(),
)
def test_augmented_boxes_fit_their_masks(
    seed: int, crop_px: int | None, scale: tuple[float, float], light: bool
):
    symmetries = AugmentConfig(flip=True, flip_vertical=True, transpose=True)
    config = EVERYTHING if light else symmetries
    config = replace(config, crop_px=crop_px, scale=scale, min_area_px=3)
    image, truth = prepare(random_image(), InputConfig()), random_truth(seed)
    changed, moved = Augment(config)(image, truth, Generator().manual_seed(seed))
    if crop_px is not None:
        assert tuple(changed.shape) == (3, crop_px, crop_px)
    assert changed.shape[1:] == moved["masks"].shape[1:]
    assert (changed.dtype, moved["masks"].dtype) == (torch.float32, torch.bool)
    assert 0 <= changed.min() and changed.max() <= 1
    parts = ("boxes", "labels", "masks", "polygons")
    assert len({len(moved[part]) for part in parts}) == 1
    assert (moved["masks"].flatten(1).sum(1) >= 3).all()
    assert_boxes_fit(moved, 0.0 if scale == (1.0, 1.0) else max(BOX_PX, scale[1]))


def test_augmentation_that_is_off_changes_nothing():
    image, truth = prepare(random_image(), InputConfig()), random_truth(0)
    same, moved = Augment(AugmentConfig())(image, truth, Generator())
    assert torch.equal(same, image)
    assert torch.equal(moved["boxes"], truth["boxes"])


def test_a_symmetry_is_drawn_half_of_the_time():
    image, truth = prepare(random_image(), InputConfig()), random_truth(0)
    for name in ("flip", "flip_vertical", "transpose"):
        augment = Augment(AugmentConfig(**{name: True}))
        changed = [
            augment(image, truth, Generator().manual_seed(seed))[0] for seed in range(200)
        ]
        kept = sum(c.shape == image.shape and torch.equal(c, image) for c in changed)
        assert 70 < kept < 130, name  # four deviations about 100


def test_a_crop_can_lie_at_every_place_and_shows_more_as_often_as_less():
    augment = Augment(AugmentConfig(crop_px=8, scale=(0.25, 4.0)))
    regions = [
        augment.choose_region((40, 40), (40, 40), Generator().manual_seed(seed))[0]
        for seed in range(300)
    ]
    sides = [side for *_, side, _ in regions]  # from 8 / 4 to 8 * 4
    assert min(sides) == 2 and 30 <= max(sides) <= 32
    assert 110 < sum(side > 8 for side in sides) < 190  # in the logarithm half
    fixed = Augment(AugmentConfig(crop_px=8))
    places = {
        fixed.choose_region((10, 9), (10, 9), Generator().manual_seed(seed))[0][:2]
        for seed in range(100)
    }
    assert places == {(top, left) for top in range(3) for left in range(2)}


def test_an_object_of_the_least_area_is_kept():
    image, truth = prepare(random_image(), InputConfig()), random_truth(0)
    areas_px = truth["masks"].flatten(1).sum(1)
    least = int(areas_px.median())
    kept = Augment(AugmentConfig(min_area_px=least))(image, truth, Generator())[1]
    assert kept["labels"].tolist() == (areas_px >= least).nonzero().ravel().tolist()


def test_light_is_drawn_from_the_whole_of_its_range():
    image = torch.full((3, 40, 40), 0.5)

    def lit(**settings: Any) -> list[torch.Tensor]:
        config = AugmentConfig(**settings)
        return [
            change_light(image, config, Generator().manual_seed(seed)) for seed in range(100)
        ]

    offsets = [float((light - image).mean()) for light in lit(offset=0.2)]
    assert min(offsets) < -0.15 and max(offsets) > 0.15
    noises = [float((light - image).std()) for light in lit(noise=0.1)]
    assert min(noises) < 0.02 and 0.08 < max(noises) < 0.11
    assert 30 < sum(float(light.mean()) > 0.5 for light in lit(gamma=(0.25, 4.0))) < 70


def test_the_light_changes_as_configured():
    image = prepare(random_image(), InputConfig())

    def lit(**settings: Any) -> torch.Tensor:
        return change_light(image, AugmentConfig(**settings), Generator().manual_seed(1))

    torch.testing.assert_close(lit(invert=1.0), 1 - image, atol=LIGHT, rtol=0)
    grey = image.mean(0).expand(3, -1, -1)
    torch.testing.assert_close(lit(grey=1.0), grey, atol=LIGHT, rtol=0)
    torch.testing.assert_close(lit(gamma=(2.0, 2.0)), image**2, atol=LIGHT, rtol=0)
    torch.testing.assert_close(lit(gain=(0.5, 0.5)), image / 2, atol=LIGHT, rtol=0)
    offset = lit(offset=0.2) - image
    inside = (lit(offset=0.2) > 0) & (lit(offset=0.2) < 1)
    span = offset[inside].max() - offset[inside].min()
    assert span < LIGHT < offset[inside].abs().max() <= 0.2
    assert 0 < (lit(noise=0.1) - image).std() < 0.1


def test_shuffled_channels_are_the_same_channels():
    image, config = prepare(random_image(), InputConfig()), AugmentConfig(shuffle_channels=1.0)
    orders = set()
    for seed in range(40):
        shuffled = change_light(image, config, Generator().manual_seed(seed))
        same = [[torch.equal(plane, channel) for channel in image] for plane in shuffled]
        orders.add(tuple(row.index(True) for row in same))
    assert len(orders) == 6 and all(sorted(order) == [0, 1, 2] for order in orders)


# --- the order of a run -----------------------------------------------------------------------


def test_every_epoch_is_another_order_of_all_pictures():
    positions = [range(10 * epoch, 10 * epoch + 10) for epoch in range(3)]
    epochs = [[sample_index(5, position, 10) for position in epoch] for epoch in positions]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [sample_index(6, position, 10) for position in range(10)] != epochs[0]


@pytest.mark.parametrize("size, begun", [(4, 0), (4, 3), (1, 0), (16, 5), (200, 30)])
def test_grouped_batches_hold_one_orientation_and_every_picture_once(size: int, begun: int):
    order = torch.randperm(101, generator=Generator().manual_seed(0))
    wide = torch.rand(101, generator=Generator().manual_seed(1)) < 0.7
    found = grouped(order, wide, size, begun)
    assert torch.equal(found[:begun], order[:begun])
    assert sorted(found.tolist()) == list(range(101))
    batches = found[begun:].split(size)
    mixed = [number for number, batch in enumerate(batches) if len(wide[batch].unique()) > 1]
    assert all(number >= len(batches) - 2 for number in mixed)
    ends = [int((order == batch[-1]).nonzero()) for batch in batches[: len(batches) - 2]]
    assert ends == sorted(ends)  # as late in the epoch as the shuffle put them


def test_a_grouped_stream_is_a_function_of_the_position(tmp_path: Path):
    folder = write_pictures(tmp_path, [(48, 64), (64, 48), (40, 64), (64, 40), (48, 60)])
    dataset = CocoFolder(folder, "train")

    def stream() -> TrainingSet:
        return TrainingSet(dataset, InputConfig(), AugmentConfig(), seed=2, group_size=2)

    straight, late = stream(), stream()
    order = [straight.index(position) for position in range(40)]
    assert [late.index(position) for position in reversed(range(40))] == order[::-1]
    for epoch in range(8):
        assert sorted(order[epoch * 5 : epoch * 5 + 5]) == list(range(5))
    wide = [dataset.size(index)[1] > dataset.size(index)[0] for index in order]
    assert sum(wide[step] != wide[step + 1] for step in range(0, 40, 2)) <= 8  # by chance 10


def test_fewer_pictures_than_a_batch_can_be_grouped(tmp_path: Path):
    dataset = CocoFolder(write_pictures(tmp_path, [(48, 64), (64, 48), (40, 64)]), "train")
    stream = TrainingSet(dataset, InputConfig(), AugmentConfig(), seed=0, group_size=8)
    for epoch in range(6):
        assert sorted(stream.index(epoch * 3 + place) for place in range(3)) == [0, 1, 2]


def test_the_short_side_is_any_whole_number_in_its_range(tmp_path: Path):
    dataset = CocoFolder(write_pictures(tmp_path, [(48, 64)]), "train")
    config = InputConfig(short_side_px=99, long_side_px=80)
    augment = AugmentConfig(short_side_px=(30, 34))
    stream = TrainingSet(dataset, config, augment, seed=0)
    sizes = {tuple(stream[position][0].shape[1:]) for position in range(60)}
    assert sizes == {(short, int(short * 64 / 48 + 0.5)) for short in (30, 31, 32, 33, 34)}
    # a long side over the limit wins, as in the official code
    capped = replace(config, long_side_px=42)
    stream = TrainingSet(dataset, capped, augment, seed=0)
    assert {stream[position][0].shape[2] for position in range(60)} == {40, 41, 42}


def test_positions_and_seeds_give_unrelated_generators():
    first = {
        torch.rand(1, generator=generator_at(seed, position)).item()
        for seed in range(5)
        for position in range(5)
    }
    assert len(first) == 25


def test_a_training_sample_depends_on_its_position_only(world: Path):
    def stream(cache: bool) -> TrainingSet:
        dataset, config = CocoFolder(world, "train", cache=cache), InputConfig(enlarge=1.5)
        return TrainingSet(dataset, config, replace(EVERYTHING, crop_px=64), seed=9)

    in_order, resumed = stream(cache=True), stream(cache=False)
    samples = [in_order[position] for position in range(26)]  # past two epochs of 12
    for position in (25, 3, 17):
        image, truth = resumed[position]
        assert torch.equal(image, samples[position][0])
        assert torch.equal(truth["boxes"], samples[position][1]["boxes"])
        assert torch.equal(truth["masks"], samples[position][1]["masks"])
    assert not torch.equal(samples[0][0], samples[12][0])


def test_training_samples_do_not_write_into_the_cache(world: Path):
    dataset = CocoFolder(world, "train", cache=True)
    before = dataset.image(0).clone()
    stream = TrainingSet(dataset, InputConfig(), EVERYTHING, seed=0)
    for position in range(12):
        stream[position]
    assert torch.equal(dataset.image(0), before)


def test_training_and_evaluation_see_the_same_picture_when_nothing_is_random(world: Path):
    dataset = CocoFolder(world, "train")
    config = InputConfig(enlarge=2.0, stretch_percentiles=(0.5, 99.8))
    image, truth = TrainingSet(dataset, config, AugmentConfig(), seed=0)[4]
    index = sample_index(0, 4, len(dataset))
    assert torch.equal(image, prepare(dataset.image(index), config))
    resized = resize_truth(dataset.truth(index), (192, 192))
    assert torch.equal(truth["masks"], resized["masks"])


def test_a_crop_of_the_training_set_is_a_crop_of_the_prepared_picture(world: Path):
    dataset, config = CocoFolder(world, "train"), InputConfig(enlarge=2.0)
    image, _ = TrainingSet(dataset, config, AugmentConfig(crop_px=64), seed=0)[1]
    whole = prepare(dataset.image(sample_index(0, 1, len(dataset))), config)
    windows = whole.unfold(1, 64, 2).unfold(2, 64, 2)  # crops start at whole pixels of the file
    inner = (windows - image[:, None, None])[..., 2:-2, 2:-2].abs().amax((0, 3, 4))
    assert inner.min() < LIGHT


def test_collate_makes_lists(world: Path):
    dataset = CocoFolder(world, "train")
    images, truths = collate([dataset[0], dataset[1]])
    assert [len(images), len(truths)] == [2, 2]
    assert torch.equal(images[1], dataset[1][0])


def test_an_empty_training_set_is_refused(tmp_path: Path):
    empty = CocoFolder(write_folder(tmp_path, quirks() | {"annotations": []}), "val")
    message = "dataset: expected at least one picture with an instance"
    with pytest.raises(InputError, match=message):
        TrainingSet(empty, InputConfig(), AugmentConfig(), seed=0)
