from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gpnet_node.model.drawing.synthesise import GPI
from gpnet_node.model.training.bids import SideBox, read_cohort
from gpnet_node.model.training.loss import UNKNOWN
from gpnet_node.model.training.samples import COHORT_MARGIN, CohortSamples, held_out_sample, vary
from gpnet_node.model.training.train_settings import CohortSettings
from tests.cohorts import write_subject

SHAPE = (16, 24, 16)


class Drawn(Dataset[tuple[Tensor, Tensor]]):
    """Stands for drawn boxes: known by their value."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((1, *SHAPE), 7.0), torch.zeros(2, *SHAPE, dtype=torch.long)


def boxes_of(folder: Path) -> list[SideBox]:
    write_subject(folder, "sub-01")
    wide = [n + 2 * COHORT_MARGIN for n in SHAPE]
    boxes = read_cohort(folder, spacing_mm=1.0, shape=wide, second_channel=True)
    for box in boxes:  # a second channel that is there: the first one, inverted
        box.image[1] = 300 - box.image[0]
    return boxes


def samples_of(boxes: list[SideBox], **changed: float) -> CohortSamples:
    settings = CohortSettings(second_channel=True, **({"drawn_share": 0.0, "drop_out": 0.0} | changed))  # type: ignore[arg-type]
    drawn = Drawn() if settings.drawn_share else None
    return CohortSamples(boxes, drawn, SHAPE, settings, seed=1)


def test_a_cohorts_sample_is_an_image_of_its_shape_with_its_classes(tmp_path: Path) -> None:
    samples = samples_of(boxes_of(tmp_path))

    for index in range(6):
        image, target = samples[index]
        assert image.shape == (2, *SHAPE)
        assert image.dtype == torch.float32
        assert target.shape == (2, *SHAPE)
        assert set(np.unique(target[0].numpy())) == {0, 1, 2}
        assert bool((target[1] == UNKNOWN).all())
        assert float(image[0][target[0] > 0].mean()) < float(image[0][target[0] == 0].mean()) - 0.5
        assert float(image[1][target[0] > 0].mean()) > float(image[1][target[0] == 0].mean()) + 0.5


def test_a_sample_follows_from_seed_and_number_alone(tmp_path: Path) -> None:
    boxes = boxes_of(tmp_path)
    one, other = samples_of(boxes), samples_of(boxes)

    first, again, next_one = one[5], other[5], one[6]

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], next_one[1])


def test_gpi_stays_medial_however_the_box_is_turned(tmp_path: Path) -> None:
    samples = samples_of(boxes_of(tmp_path))

    for index in range(12):
        _, target = samples[index]
        x = torch.arange(SHAPE[2], dtype=torch.float32)
        gpi, gpe = ((target[0] == c).sum((0, 1)).float() for c in (GPI, 1))
        assert float(x @ gpi / gpi.sum()) < float(x @ gpe / gpe.sum())


def test_drawn_samples_are_mixed_in_without_a_second_channel(tmp_path: Path) -> None:
    samples = samples_of(boxes_of(tmp_path), drawn_share=0.5)

    drawn = [image for image, _ in (samples[i] for i in range(40)) if float(image[0, 0, 0, 0]) == 7]

    assert 8 < len(drawn) < 32
    assert all(image.shape == (2, *SHAPE) and not bool(image[1].any()) for image in drawn)


@pytest.mark.parametrize(("drop_out", "left"), [(0.0, 12), (1.0, 0)])
def test_the_second_channel_is_left_out_as_often_as_asked(tmp_path: Path, drop_out: float, left: int) -> None:
    samples = samples_of(boxes_of(tmp_path), drop_out=drop_out)

    assert sum(bool(samples[i][0][1].any()) for i in range(12)) == left


def test_a_box_that_is_validated_on_is_shown_as_it_is(tmp_path: Path) -> None:
    box = boxes_of(tmp_path)[0]

    image, target = held_out_sample(box)

    inner = (slice(None), *(slice(COHORT_MARGIN, -COHORT_MARGIN),) * 3)
    assert np.array_equal(target.numpy(), box.target[inner])
    assert image.shape == (2, *SHAPE)
    assert abs(float(image[0].mean())) < 1e-4


def test_intensities_vary_by_seed_alone() -> None:
    image = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))

    varied = [vary(image, seed) for seed in range(12)]

    assert all(torch.equal(vary(image, seed), varied[seed]) for seed in range(12))
    assert any(not torch.allclose(v, varied[0]) for v in varied)
    assert all(abs(float(v.mean())) < 1e-4 for v in varied)
