import pytest

from gpnet_node.model.drawing.tissue import (
    FREESURFER_TISSUE,
    HEAD_TISSUE_OFFSET,
    IRON,
    T1,
    T2,
    T2STAR,
    TISSUES,
    Tissue,
)


def test_every_tissue_has_a_number_below_those_of_the_head_s_other_labels() -> None:
    assert max(Tissue) < HEAD_TISSUE_OFFSET
    assert TISSUES == HEAD_TISSUE_OFFSET + 16


def test_both_pallida_are_one_tissue_until_a_border_divides_them() -> None:
    assert FREESURFER_TISSUE[13] is FREESURFER_TISSUE[52] is Tissue.GPE
    assert Tissue.GPI not in FREESURFER_TISSUE.values()


@pytest.mark.parametrize("table", [T1, T2, T2STAR], ids=["T1", "T2", "T2*"])
def test_every_tissue_but_those_that_follow_the_gpe_has_a_range(
    table: dict[Tissue, tuple[float, float]],
) -> None:
    assert set(table) == set(Tissue) - {Tissue.BACKGROUND, Tissue.GPI, Tissue.LAMINA}
    assert all(0 < low < high for low, high in table.values())


@pytest.mark.parametrize("table", [T2, T2STAR], ids=["T2", "T2*"])
def test_pallidum_is_darker_than_its_neighbours_where_iron_shows(
    table: dict[Tissue, tuple[float, float]],
) -> None:
    neighbours = (Tissue.PUTAMEN, Tissue.INTERNAL_CAPSULE, Tissue.THALAMUS, Tissue.WHITE_MATTER)

    assert all(table[Tissue.GPE][1] < table[other][0] for other in neighbours)


def test_age_decides_a_part_of_a_tissue_s_range() -> None:
    assert all(0 < share < 1 for share in IRON.values())
    assert IRON[Tissue.GPE] == max(IRON.values())
