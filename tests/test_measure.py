import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpnet_node.errors import SelfCheckError
from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.measure import counterpart, measure
from tests.pallida import OBLIQUE, Head, draw_head


@pytest.fixture
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


@pytest.fixture
def head(tmp_path: Path) -> Head:
    return draw_head(tmp_path)


def test_volumes_of_ellipsoids_are_those_of_geometry(tmp_path: Path, card: ModelCard) -> None:
    head = draw_head(tmp_path, shape=(60, 200, 220), spacing_mm=(0.5, 0.4, 0.4), orientation=OBLIQUE)

    outer, inner, outer_right, inner_right = measure(head.volume, head.labels, card)

    # The drawn GPe loses what the GPi overlaps, the GPi is whole.
    assert inner.volume_mm3 == pytest.approx(4 / 3 * math.pi * 2.7 * 7.5 * 4.6, rel=0.01)
    assert inner_right.volume_mm3 == pytest.approx(4 / 3 * math.pi * 2.7 * 7.5 * 4.6 * 0.94**3, rel=0.01)
    assert outer.volume_mm3 <= 4 / 3 * math.pi * 4.2 * 10 * 5.8 * 1.01
    assert inner.centroid_mm == pytest.approx((15.5, 1.0, -0.5), abs=0.05)
    assert inner_right.centroid_mm == pytest.approx((-15.5, 1.0, -0.5), abs=0.05)
    assert outer_right.asymmetry_percent == outer.asymmetry_percent


def test_signal_is_the_sources_over_the_same_voxels(head: Head, card: ModelCard) -> None:
    measured = measure(head.volume, head.labels, card)

    for one in measured:
        voxels = head.volume.voxels[head.labels.labels == one.structure.number].astype(float)
        assert one.voxel_count == voxels.size
        assert one.signal_mean == pytest.approx(voxels.mean())
        assert one.signal_sd == pytest.approx(voxels.std())


def test_asymmetry_is_positive_where_the_left_is_larger(head: Head, card: ModelCard) -> None:
    labels = np.zeros_like(head.labels.labels)
    labels[2, 2, 2:5] = 2  # three voxels left
    labels[2, 2, 20:22] = 4  # two right

    _, left, _, right = measure(head.volume, head.relabelled(labels).labels, card)

    assert left.asymmetry_percent == right.asymmetry_percent == pytest.approx(100 * (3 - 2) / 2.5)


def test_an_empty_structure_has_no_centre_and_no_signal_and_never_a_nan(head: Head, card: ModelCard) -> None:
    labels = np.where(head.labels.labels == 2, 0, head.labels.labels).astype(np.uint8)

    outer, gone, _, right = measure(head.volume, head.relabelled(labels).labels, card)

    assert (gone.voxel_count, gone.volume_mm3) == (0, 0.0)
    assert (gone.centroid_mm, gone.signal_mean, gone.signal_sd) == (None, None, None)
    assert gone.asymmetry_percent == right.asymmetry_percent == -200
    assert outer.centroid_mm is not None
    assert not gone.within_conventional_range


def test_nothing_on_either_side_has_no_asymmetry(head: Head, card: ModelCard) -> None:
    labels = np.zeros_like(head.labels.labels)

    assert {m.asymmetry_percent for m in measure(head.volume, head.relabelled(labels).labels, card)} == {None}


def test_a_label_that_the_card_does_not_name_is_an_error(head: Head, card: ModelCard) -> None:
    labels = head.labels.labels.copy()
    labels[0, 0, 0] = 7

    with pytest.raises(SelfCheckError, match="holds 7"):
        measure(head.volume, head.relabelled(labels).labels, card)


def test_a_label_map_of_another_size_is_an_error(head: Head, card: ModelCard, tmp_path: Path) -> None:
    other = draw_head(tmp_path / "other", shape=(18, 48, 60))

    with pytest.raises(SelfCheckError, match="sizes differ"):
        measure(head.volume, other.labels, card)


def test_each_structure_of_the_card_has_its_counterpart(card: ModelCard) -> None:
    pairs = {structure.name: counterpart(structure, card) for structure in card.structures}

    assert {name: None if other is None else other.name for name, other in pairs.items()} == {
        "GPe left": "GPe right",
        "GPi left": "GPi right",
        "GPe right": "GPe left",
        "GPi right": "GPi left",
    }
    alone = card.model_copy(update={"structures": card.structures[:1]})
    assert counterpart(card.structures[0], alone) is None


def test_the_conventional_range_is_the_cards(head: Head, card: ModelCard) -> None:
    first = measure(head.volume, head.labels, card)[0]
    structure = first.structure.model_copy(update={"volume_range_mm3": (0.0, first.volume_mm3 / 2)})

    assert first.within_conventional_range
    assert not replace(first, structure=structure).within_conventional_range
