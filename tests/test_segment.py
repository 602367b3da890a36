from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest

from gpnet_node.errors import ConfigurationError, NoPallidumError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.evaluate import as_volume, dice
from gpnet_node.model.head import DrawnHead
from gpnet_node.model.segment import GPNetSegmenter
from tests.drawn import drawn_head


@pytest.fixture(scope="module")
def segmenter(model_folder: Path) -> GPNetSegmenter:
    return GPNetSegmenter(model_folder)


def centres_mm(labels: LabelMap) -> dict[int, np.ndarray]:
    affine = np.asarray(labels.geometry.affine)
    return {n: affine[:3, :3] @ np.argwhere(labels.labels == n).mean(0) + affine[:3, 3] for n in (1, 2, 3, 4)}


def assert_agrees(found: LabelMap, truth: DrawnHead, least: float) -> None:
    scores = {n: dice(found.labels, truth.labels, n) for n in (1, 2, 3, 4)}
    assert min(scores.values()) >= least, scores


def test_all_four_structures_of_a_drawn_head_are_found(segmenter: GPNetSegmenter) -> None:
    head = drawn_head()

    found = segmenter.segment(as_volume(head))

    assert_agrees(found, head, 0.7)


def test_an_oblique_slab_is_segmented_as_well(segmenter: GPNetSegmenter) -> None:
    head = drawn_head(seed=2, turned_degrees=(14.0, -6.0, 8.0), centre_mm=(5.0, -4.0, 3.0))

    found = segmenter.segment(as_volume(head))

    assert_agrees(found, head, 0.65)


@pytest.mark.parametrize("turned", [(90.0, 0.0, 0.0), (0.0, 90.0, 0.0)], ids=["coronal", "sagittal"])
def test_coronal_and_sagittal_slabs_are_segmented(
    segmenter: GPNetSegmenter, turned: tuple[float, float, float]
) -> None:
    head = drawn_head(seed=3, slices=80, turned_degrees=turned)

    found = segmenter.segment(as_volume(head))

    assert_agrees(found, head, 0.6)


def test_left_stays_left_when_rows_and_columns_run_the_other_way(segmenter: GPNetSegmenter) -> None:
    head = drawn_head()
    straight = segmenter.segment(as_volume(head))

    flipped = segmenter.segment(_flipped(as_volume(head)))

    for number, centre in centres_mm(straight).items():
        assert centres_mm(flipped)[number] == pytest.approx(centre, abs=0.5)
    assert centres_mm(flipped)[1][0] > 0 > centres_mm(flipped)[3][0]  # LPS: left is positive


def _flipped(volume: Volume) -> Volume:
    """The same head with rows and columns numbered from the other end (and so turned by half a circle)."""
    affine = np.asarray(volume.geometry.affine).copy()
    _, rows, columns = volume.voxels.shape
    affine[:3, 3] += affine[:3, 1] * (rows - 1) + affine[:3, 2] * (columns - 1)
    affine[:3, 1:3] *= -1
    geometry = hd.VolumeGeometry(
        affine=affine,
        spatial_shape=volume.voxels.shape,
        coordinate_system="PATIENT",
        frame_of_reference_uid=str(volume.geometry.frame_of_reference_uid),
    )
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels[:, ::-1, ::-1]), geometry=geometry)


def test_the_same_volume_gives_the_same_labels(segmenter: GPNetSegmenter) -> None:
    volume = as_volume(drawn_head())

    assert np.array_equal(segmenter.segment(volume).labels, segmenter.segment(volume).labels)


def test_a_slab_above_the_pallidum_is_refused_not_guessed(segmenter: GPNetSegmenter) -> None:
    head = drawn_head(seed=4, slices=30, centre_mm=(0.0, 0.0, 60.0))
    assert not head.labels.any()

    with pytest.raises(NoPallidumError):
        segmenter.segment(as_volume(head))


def test_an_empty_volume_is_refused(segmenter: GPNetSegmenter) -> None:
    volume = as_volume(drawn_head())

    with pytest.raises(NoPallidumError):
        segmenter.segment(replace(volume, voxels=np.zeros_like(volume.voxels)))


def test_a_card_that_does_not_fit_its_weights_is_the_operators_to_mend(
    model_folder: Path, tmp_path: Path
) -> None:
    for name in ("card.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    card = (tmp_path / "card.toml").read_text(encoding="utf-8")
    assert "16, 32, 64, 128" in card
    (tmp_path / "card.toml").write_text(card.replace("16, 32, 64, 128", "16, 32, 64, 96"), encoding="utf-8")

    with pytest.raises(ConfigurationError, match="does not fit"):
        GPNetSegmenter(tmp_path)
