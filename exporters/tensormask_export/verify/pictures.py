"""What is fed to both sides: random pictures, picture files, the pictures of a COCO folder.

next: verify/compare.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tensormask_edu.base.errors import bad_input, require
from tensormask_edu.config import SEEDS, InputConfig, ModelConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.pictures import Pixels, read_image
from tensormask_edu.data.prepare import prepare

from ..shapes import Array, Size


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size: float32 (3, H, W) RGB in [0, 1].

    output_size: height and width of the picture in whose pixels results are wanted; image_id:
    in a COCO folder, else -1.
    """

    name: str
    images: list[Array]
    output_size: Size
    image_id: int = -1

    @property
    def input_size(self) -> Size:
        """Height and width before padding."""
        return (self.images[0].shape[-2], self.images[0].shape[-1])


def random_pictures(
    config: ModelConfig, sizes: Sequence[tuple[int, ...]], seed: int
) -> list[Pictures]:
    """Soft random blobs with noise, for each (batch, height, width).

    They have edges and flat parts, as pictures have.

    Raises:
        InputError: sides that are no multiples of the model's padding, no such seed.
    """
    require(0 <= seed < SEEDS, "seed", f"from 0 to {SEEDS - 1}", seed)
    return [
        Pictures("x".join(map(str, size)), _blobs(config, size, seed), (size[-2], size[-1]))
        for size in sizes
    ]


def _blobs(config: ModelConfig, size: tuple[int, ...], seed: int) -> list[Array]:
    multiple = config.geometry.padding_px
    if len(size) != 3 or min(size) < 1 or size[1] % multiple or size[2] % multiple:
        expected = f"batch >= 1 and sides that are multiples of {multiple}"
        raise bad_input("size", expected, "x".join(map(str, size)))
    num, height, width = size
    generator = torch.Generator().manual_seed(seed)
    rows, columns = height // multiple + 1, width // multiple + 1
    coarse = torch.rand(num, 3, rows, columns, generator=generator)
    blobs = torch.nn.functional.interpolate(
        coarse, (height, width), mode="bicubic", align_corners=True
    )
    noise = torch.randn(num, 3, height, width, generator=generator)
    # blobs with more contrast, from 0 to 1 again
    return list(((blobs - 0.5) * 1.5 + 0.5 + 0.05 * noise).clamp(0, 1).numpy())


def picture_files(paths: Sequence[str | Path], input_config: InputConfig) -> list[Pictures]:
    """Picture files, prepared as the checkpoint says."""
    return [_prepared(read_image(path), Path(path).name, input_config) for path in paths]


def _prepared(image: Pixels, name: str, config: InputConfig, image_id: int = -1) -> Pictures:
    size = (image.shape[-2], image.shape[-1])
    return Pictures(name, [prepare(image, config)], size, image_id)


def coco_pictures(
    dataset: CocoFolder, limit: int | None, input_config: InputConfig
) -> Iterator[Pictures]:
    """The first `limit` pictures of a COCO folder, read one at a time."""
    for index in range(len(dataset) if limit is None else min(limit, len(dataset))):
        image, name = dataset.image(index).numpy(), dataset.path(index).name
        yield _prepared(image, name, input_config, dataset.image_ids[index])
