import time
from dataclasses import replace
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from gpnet_node.config import RouteConfig
from gpnet_node.eligibility import ContrastRule, EligibilityConfig
from gpnet_node.errors import MissingSlicesError, NotAVolumeError
from gpnet_node.imaging.gate import OWN_MANUFACTURER, Decision, decide
from gpnet_node.imaging.series import find_files, read_headers, split
from tests.factories import CORONAL, enhanced_mr, mr_series, uid_of

# A slab that the default route takes: 7T T2 TSE, 0.4 x 0.4 x 1 mm.
SLAB: dict[str, Any] = {"slices": 24, "rows": 260, "columns": 260}
SPIN_ECHO = ContrastRule(name="se", scanning_sequence=("SE",))


def route(name: str = "gpnet", **eligible: Any) -> RouteConfig:  # noqa: ANN401
    return RouteConfig(name=name, model="gpnet-1", eligible=EligibilityConfig(**eligible))


def decision(paths: list[Path], *routes: RouteConfig) -> Decision:
    return decide(split(read_headers(paths)), routes or (route(),))


def test_a_7t_t2_slab_is_eligible(tmp_path: Path) -> None:
    found = decision(mr_series(tmp_path, **SLAB))

    assert found.eligible
    assert found.route is not None
    assert found.route.name == "gpnet"
    assert found.reasons == ()
    assert found.notes == ()


def test_direction_cosines_that_had_to_be_made_orthonormal_are_noted_with_uid_and_number(
    tmp_path: Path,
) -> None:
    paths = mr_series(tmp_path, **SLAB, orientation=(0.966, 0.259, 0.0, -0.243, 0.908, 0.342))

    found = decision(paths)

    (note,) = found.notes
    assert "made unit vectors at a right angle" in note
    assert uid_of(paths[0]) in note
    assert "0.0003" in note


def test_an_enhanced_7t_t2_slab_is_eligible(tmp_path: Path) -> None:
    assert decision([enhanced_mr(tmp_path, **SLAB)]).eligible


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"Modality": "CT"}, "Modality is CT; the route takes MR."),
        ({"Modality": None}, "Modality is not stated; the route takes MR."),
        ({"MagneticFieldStrength": 3.0}, "Field strength is 3 T; the route takes 6.5 to 8 T."),
        ({"MagneticFieldStrength": None}, "Field strength is not stated; the route takes 6.5 to 8 T."),
        (
            {"ImageType": ["DERIVED", "SECONDARY", "M", "DIS3D"]},
            "Image Type is DERIVED\\SECONDARY; only acquired images are segmented.",
        ),
        ({"Manufacturer": OWN_MANUFACTURER}, "It was written by gpnet_node itself."),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
            "It is a PHASE image; only MAGNITUDE images are segmented.",
        ),
        ({"EchoTime": 5.0}, "Contrast is not t2-tse: echo time is 5 ms; the route takes 30 to 150 ms."),
        (
            {"RepetitionTime": None},
            "Contrast is not t2-tse: repetition time is not stated; the route takes 1500 to 20000 ms.",
        ),
        (
            {"ScanningSequence": "GR"},
            "Contrast is not t2-tse: scanning sequence is GR; the rule asks for SE or RM.",
        ),
        (
            {"ScanningSequence": ["EP", "SE"]},
            "Contrast is not t2-tse: scanning sequence is EP\\SE; the rule excludes EP.",
        ),
        ({"slices": 6, "spacing_mm": (2, 0.4, 0.4)}, "It has 6 slices; the route asks for at least 10."),
        ({"spacing_mm": (1, 1, 0.4)}, "In-plane spacing is 1 mm; the route takes at most 0.8 mm."),
        ({"spacing_mm": (3, 0.4, 0.4)}, "Slice spacing is 3 mm; the route takes at most 2.5 mm."),
        (
            {"spacing_mm": (0.5, 0.4, 0.4)},
            "It covers 12.0 mm across the slices; the route asks for at least 20 mm.",
        ),
        (
            {"columns": 100},
            "It covers 40.0 mm within the slice; the route asks for at least 100 mm.",
        ),
    ],
)
def test_a_series_that_is_not_meant_is_answered_with_the_found_value_and_the_limit(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    found = decision(mr_series(tmp_path, **{**SLAB, **changed}))

    assert not found.eligible
    assert found.route is None
    assert sentence in found.reasons


def test_a_series_of_thousands_of_orientations_is_refused_in_seconds_not_minutes(tmp_path: Path) -> None:
    (frame,) = read_headers(mr_series(tmp_path, slices=1))
    angles = [2 * pi * number / 8000 for number in range(8000)]
    fan = [replace(frame, orientation=(cos(a), sin(a), 0.0, -sin(a), cos(a), 0.0)) for a in angles]
    stacks = split(fan)

    began = time.process_time()
    with pytest.raises(NotAVolumeError, match="mixes orientations"):
        decide(stacks, (route(),))

    assert time.process_time() - began < 10


def test_all_reasons_against_a_kind_of_image_are_given_at_once(tmp_path: Path) -> None:
    found = decision(
        mr_series(tmp_path, **SLAB, MagneticFieldStrength=1.5, EchoTime=3.0, ScanningSequence="GR")
    )

    assert len(found.reasons) == 2
    assert "echo time is 3 ms" in found.reasons[1]
    assert "scanning sequence is GR" in found.reasons[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"FrameType": ["DERIVED", "SECONDARY", "MPR", "NONE"]}, "DERIVED\\SECONDARY"),
        ({"EffectiveEchoTime": 4.0}, "echo time is 4 ms"),
        ({"EchoPulseSequence": "GRADIENT"}, "scanning sequence is GR"),
        ({"EchoPlanarPulseSequence": "YES"}, "the rule excludes EP"),
        ({"InversionRecovery": "YES"}, "the rule excludes IR"),
        ({"ComplexImageComponent": "PHASE"}, "PHASE image"),
        ({"MagneticFieldStrength": 3.0}, "Field strength is 3 T"),
    ],
)
def test_enhanced_images_are_judged_by_their_own_attributes(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    found = decision([enhanced_mr(tmp_path, **{**SLAB, **changed})])

    assert not found.eligible
    assert any(words in reason for reason in found.reasons)


def test_an_image_to_which_this_node_contributed_is_never_input(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, **SLAB)
    equipment = Dataset()
    equipment.Manufacturer = OWN_MANUFACTURER
    for path in paths:
        dataset = dcmread(path)
        dataset.ContributingEquipmentSequence = [equipment]
        dataset.save_as(path)

    assert decision(paths).reasons == ("It was written by gpnet_node itself.",)


def test_one_matching_contrast_rule_is_enough_and_its_pattern_ignores_case(tmp_path: Path) -> None:
    rules = (
        ContrastRule(name="swi", echo_time_ms=(10, 25), scanning_sequence=("GR",)),
        ContrastRule(name="by-name", description_pattern="^T2_"),
    )

    assert decision(mr_series(tmp_path, **SLAB), route(contrast=rules)).eligible


def test_a_description_that_matches_no_rule_is_not_repeated_in_the_reason(tmp_path: Path) -> None:
    rules = (ContrastRule(name="by-name", description_pattern="swi"),)

    found = decision(mr_series(tmp_path, **SLAB, SeriesDescription="Miller_knee"), route(contrast=rules))

    assert "matches 'swi'" in found.reasons[0]
    assert "Miller" not in found.reasons[0]


@pytest.mark.parametrize("keyword", ["Modality", "ScanningSequence"])
def test_a_text_that_is_no_code_is_not_repeated_in_the_reason(tmp_path: Path, keyword: str) -> None:
    header: dict[str, Any] = {keyword: "Jansen Piet"}

    found = decision(mr_series(tmp_path, **SLAB, **header), route(contrast=(SPIN_ECHO,)))

    assert any("(no code)" in reason for reason in found.reasons)
    assert "Jansen" not in " ".join(found.reasons)


def test_lossy_images_are_taken_with_a_note_or_refused_as_the_route_says(tmp_path: Path) -> None:
    flag: dict[str, Any] = {"LossyImageCompression": lambda index: "01" if index == 7 else "00"}
    paths = mr_series(tmp_path, **SLAB, **flag)

    assert decision(paths).notes == ("The images were compressed with loss.",)
    assert decision(paths, route(allow_lossy=False)).reasons == (
        "It was compressed with loss, which the route does not allow.",
    )


def offered(folder: Path, kinds: list[str]) -> list[Path]:
    """One series for each kind of distortion correction."""
    return [
        path
        for number, kind in enumerate(kinds)
        for path in mr_series(
            folder / kind, series=str(number), ImageType=["ORIGINAL", "PRIMARY", "M", *kind.split()], **SLAB
        )
    ]


@pytest.mark.parametrize(
    ("kinds", "best"),
    [(["ND", "DIS2D", "DIS3D"], "DIS3D"), (["ND", "DIS2D"], "DIS2D"), (["ND", "NORM"], "NORM")],
)
def test_the_better_corrected_twin_is_preferred(tmp_path: Path, kinds: list[str], best: str) -> None:
    found = decision(offered(tmp_path, kinds))

    assert found.stack is not None
    assert found.stack.frames[0].image_type[-1] == best


def test_uncorrected_images_are_taken_with_a_note_where_nothing_better_is_offered(tmp_path: Path) -> None:
    found = decision(offered(tmp_path, ["ND"]))

    assert found.eligible
    assert "not corrected for gradient distortion (ND)" in found.notes[0]


def test_twins_that_nothing_ranks_are_not_chosen_from(tmp_path: Path) -> None:
    found = decision(offered(tmp_path, ["ND", "DIS3D"]), route(prefer_distortion_corrected=False))

    assert not found.eligible
    assert "2 volumes suit route gpnet equally well" in found.reasons[0]


def test_the_eligible_echo_of_a_series_is_taken(tmp_path: Path) -> None:
    paths = [
        *mr_series(tmp_path / "1", EchoTime=10.0, EchoNumbers=1, **SLAB),
        *mr_series(tmp_path / "2", EchoTime=80.0, EchoNumbers=2, **SLAB),
    ]

    found = decision(paths)

    assert found.stack is not None
    assert found.stack.frames[0].echo_time_ms == 80.0


def test_the_first_route_that_takes_the_series_wins(tmp_path: Path) -> None:
    routes = (route("weak", field_strength_tesla=(2.8, 3.2)), route("strong"), route("later"))

    found = decision(mr_series(tmp_path, **SLAB), *routes)

    assert found.route == routes[1]


def test_reasons_name_the_route_where_there_are_several(tmp_path: Path) -> None:
    routes = (route("a"), route("b", field_strength_tesla=(6.9, 7.1)))

    found = decision(mr_series(tmp_path, **SLAB, MagneticFieldStrength=3.0), *routes)

    assert found.reasons == (
        "Route a: Field strength is 3 T; the route takes 6.5 to 8 T.",
        "Route b: Field strength is 3 T; the route takes 6.9 to 7.1 T.",
    )


def test_a_series_that_is_meant_but_misses_a_slice_is_an_error_and_not_a_rejection(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, **SLAB)

    with pytest.raises(MissingSlicesError, match="misses 1 of 24"):
        decision(paths[:7] + paths[8:])


def test_a_series_that_is_meant_but_mixes_grids_is_an_error(tmp_path: Path) -> None:
    odd = mr_series(tmp_path / "odd", slices=1, rows=260, columns=260, orientation=CORONAL)

    with pytest.raises(NotAVolumeError, match="mixes orientations"):
        decision([*mr_series(tmp_path, **SLAB), *odd])


def test_a_broken_series_that_is_not_meant_is_rejected_and_no_error(tmp_path: Path) -> None:
    paths = mr_series(tmp_path, MagneticFieldStrength=3.0)

    assert decision(paths[:3] + paths[5:]).reasons == ("Field strength is 3 T; the route takes 6.5 to 8 T.",)


def test_a_broken_volume_beside_an_eligible_one_is_told(tmp_path: Path) -> None:
    whole = mr_series(tmp_path / "1", series="1", **SLAB)
    broken = mr_series(tmp_path / "2", series="2", **SLAB)

    found = decision([*whole, *broken[:5], *broken[6:]])

    assert found.eligible
    assert "Passed over: series" in found.notes[0]
    assert "misses 1 of 24 slices" in found.notes[0]


def test_nothing_offered_and_no_route_are_said(tmp_path: Path) -> None:
    assert decide((), (route(),)).reasons == ("There is no image.",)
    assert decide(split(read_headers(mr_series(tmp_path))), ()).reasons == ("No route is configured.",)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("niivue_t1_mpr_tra/dicom", "Field strength is 1.5 T"),
        ("dcm_qa_fmap/GE_7T_2_3db0maps", "echo time is 4.94 ms"),
        ("dcm_qa_xa30/5_anat-T1w_acq-tfl", "Field strength is 3 T"),
        ("dcmqi/segmentations/23x38x3/image", "Modality is CT"),
    ],
)
def test_real_series_of_another_kind_are_rejected_with_the_reason(
    shared_data: Path, folder: str, words: str
) -> None:
    found = decision([*find_files(shared_data / "dicom" / folder)])

    assert not found.eligible
    assert any(words in reason for reason in found.reasons)
