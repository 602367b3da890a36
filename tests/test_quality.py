"""What a segmentation says of itself, on sides made by hand."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray

from gpnet_node.errors import NoPallidumError
from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import DiceRegression, ModelCard, read_card
from gpnet_node.model.patient_grid import edge_distance_mm, inside
from gpnet_node.model.quality import assess, entropy_nats, fit_predicted_dice, predict_dice
from gpnet_node.model.segmentation import Quality, SideProbability

SPACING_MM = 1.0
SIZE = (30, 30, 60)  # (slice, row, column): 1 mm, columns to the left


@pytest.fixture(scope="module")
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def geometry(origin_mm: tuple[float, float, float] = (-30.0, -15.0, -15.0)) -> hd.VolumeGeometry:
    affine = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    affine[:3, 3] = origin_mm
    return hd.VolumeGeometry(affine=affine, spatial_shape=SIZE, coordinate_system="PATIENT")


def blocks(*, gpi_rows: int = 9, certain: float = 0.98) -> NDArray[np.float32]:
    """Background, GPe and GPi of one side, (3, z, y, x): two blocks of 12 slices, GPe 12 x 8 voxels."""
    classes = np.zeros((20, 20, 24), int)
    classes[4:16, 4:16, 12:20] = 1
    classes[4:16, 4 : 4 + gpi_rows, 7:12] = 2
    other = (1 - certain) / 2
    return np.stack([np.where(classes == c, certain, other) for c in range(3)]).astype(np.float32)


def side(name: str, *, probability: NDArray[np.float32] | None = None, x_mm: float = 3.0) -> SideProbability:
    """A left side from ``x_mm`` to the left of the middle on; a right one mirrors it."""
    probability = blocks() if probability is None else probability
    width = probability.shape[-1]
    left = name == "left"
    return SideProbability(
        side=name,
        probability=probability if left else np.ascontiguousarray(probability[..., ::-1]),
        lesion=np.zeros(probability.shape[1:], np.float32),
        spacing_mm=SPACING_MM,
        origin_mm=(x_mm if left else -x_mm - width + 1, -10.0, -10.0),
    )


def labelled(card: ModelCard, *sides: SideProbability, place: hd.VolumeGeometry | None = None) -> LabelMap:
    """The label map that the sides' classes make on a volume of 1 mm."""
    place = place or geometry()
    labels = np.zeros(SIZE, np.uint8)
    for it in sides:
        start = np.round(np.array(it.origin_mm) - place.affine[:3, 3]).astype(int)[::-1]
        for z, y, x in np.argwhere(it.probability.argmax(0) > 0):
            where = start + np.array([z, y, x])
            if ((where >= 0) & (where < SIZE)).all():
                channel = int(it.probability[:, z, y, x].argmax())
                number = next(s.number for s in card.structures if s.side == it.side and s.channel == channel)
                labels[tuple(where)] = number
    return LabelMap(labels=labels, geometry=place)


def assessed(card: ModelCard, *sides: SideProbability, place: hd.VolumeGeometry | None = None) -> Quality:
    return assess(labelled(card, *sides, place=place), {it.side: it for it in sides}, card)


def test_two_certain_sides_of_common_size_give_no_reason_for_a_review(card: ModelCard) -> None:
    quality = assessed(card, side("left"), side("right"))

    assert quality.reasons == ()
    assert quality.outside_share == {"left": 0.0, "right": 0.0}
    assert quality.lesion_mm3 == {"left": 0.0, "right": 0.0}
    assert quality.features["GPe left"]["asymmetry"] == 0.0


def test_without_a_regression_in_the_card_no_dice_is_predicted(card: ModelCard) -> None:
    plain = card.model_copy(update={"quality": None})

    assert assessed(plain, side("left"), side("right")).predicted_dice == {}


def test_entropy_is_nothing_where_the_network_is_sure_and_ln_3_where_it_knows_nothing() -> None:
    sure = np.zeros((3, 1, 1, 1), np.float32)
    sure[1] = 1

    assert entropy_nats(sure) == pytest.approx(0, abs=1e-5)
    assert entropy_nats(np.full((3, 1, 1, 1), 1 / 3, np.float32)) == pytest.approx(np.log(3), abs=1e-5)


def test_less_certain_probabilities_raise_entropy_and_lower_the_expected_dice(card: ModelCard) -> None:
    vague = blocks(certain=0.7)
    sure, unsure = (
        assessed(card, *(side(name, probability=p) for name in ("left", "right"))) for p in (blocks(), vague)
    )

    assert unsure.entropy["GPi left"] > 3 * sure.entropy["GPi left"]
    assert unsure.features["GPi left"]["expected_dice"] < sure.features["GPi left"]["expected_dice"]
    assert unsure.features["GPe left"]["interface_entropy"] > sure.features["GPe left"]["interface_entropy"]


def test_a_pallidum_near_the_edge_of_the_volume_needs_review(card: ModelCard) -> None:
    place = geometry((-30.0, -15.0, -8.0))  # its lowest labels then lie 2 mm above the first slice's face

    quality = assessed(card, side("left"), side("right"), place=place)

    assert quality.edge_distance_mm == {"left": 2.0, "right": 2.0}
    assert [reason for reason in quality.reasons if "2.0 mm from the edge" in reason] == [*quality.reasons]
    assert len(quality.reasons) == 2


def test_a_pallidum_that_reaches_beyond_the_volume_says_by_how_much(card: ModelCard) -> None:
    place = geometry((-30.0, -15.0, -3.0))  # a quarter of its slices lie below the volume

    quality = assessed(card, side("left"), side("right"), place=place)

    assert quality.outside_share["left"] == pytest.approx(0.25)
    assert "the left pallidum reaches beyond the volume by 25 % of what was found" in quality.reasons


def test_a_lesion_that_touches_the_pallidum_needs_review_and_one_apart_does_not(card: ModelCard) -> None:
    lesion = np.zeros(blocks().shape[1:], np.float32)
    lesion[9:12, 9:12, 20:23] = 0.9  # beside GPe
    lesion[0:3, 0:3, 0:3] = 0.9

    quality = assessed(card, replace(side("left"), lesion=lesion), side("right"))

    assert quality.lesion_mm3 == {"left": 27.0, "right": 0.0}
    assert quality.reasons == ("a lesion or lead of 27 mm3 lies in or at the left pallidum",)


def test_volumes_far_beyond_the_conventional_ones_need_review(card: ModelCard) -> None:
    small = blocks(gpi_rows=3)

    quality = assessed(card, *(side(name, probability=small) for name in ("left", "right")))

    measured = [reason for reason in quality.reasons if " measures " in reason]
    assert [reason.split(" measures")[0] for reason in measured] == ["GPi left", "GPi right"]
    assert "measures 180 mm3" in measured[0]
    assert "400-750 mm3" in measured[0]


def test_a_border_off_its_usual_place_is_told_by_the_shares_of_the_side_it_lies_in(card: ModelCard) -> None:
    quality = assessed(card, side("left", probability=blocks(gpi_rows=3)), side("right"))

    away = {name: features["share_deviation"] for name, features in quality.features.items()}
    assert away["GPe left"] == pytest.approx(away["GPi left"])
    assert away["GPe left"] > 0.15
    assert away["GPe right"] < 0.05


def test_sides_that_differ_by_more_than_the_cards_limit_need_review(card: ModelCard) -> None:
    quality = assessed(card, side("left", probability=blocks(gpi_rows=6)), side("right"))

    assert quality.features["GPi left"]["asymmetry"] == pytest.approx(0.4)
    limits = card.review.model_copy(update={"asymmetry_percent": 30.0})
    strict = assessed(
        card.model_copy(update={"review": limits}),
        side("left", probability=blocks(gpi_rows=6)),
        side("right"),
    )
    assert quality.reasons == ()
    assert strict.reasons == (
        "medial globus pallidus: left and right differ by 40 % of their mean, more than 30 %",
    )


def test_a_predicted_dice_below_the_cards_threshold_needs_review(card: ModelCard) -> None:
    regression = DiceRegression(features=("entropy",), coefficients=(0.0,), intercept=0.0, threshold=0.6)

    quality = assessed(card.model_copy(update={"quality": regression}), side("left"), side("right"))

    assert quality.predicted_dice["GPi right"] == 0.5
    assert "GPi right: the predicted Dice of 0.50 is below 0.60" in quality.reasons


def test_a_structure_without_a_voxel_is_doubted_not_divided_by(card: ModelCard) -> None:
    no_gpi = blocks()
    no_gpi[2] = 0

    quality = assessed(card, side("left", probability=no_gpi), side("right"))

    assert quality.entropy["GPi left"] == pytest.approx(np.log(3))
    assert quality.features["GPi left"]["expected_dice"] == 0.0
    assert any(reason.startswith("GPi left measures 0 mm3") for reason in quality.reasons)


def test_a_side_without_any_label_is_refused(card: ModelCard) -> None:
    nothing = LabelMap(labels=np.zeros(SIZE, np.uint8), geometry=geometry())

    with pytest.raises(NoPallidumError):
        assess(nothing, {"left": side("left")}, card)


def test_the_distance_to_the_edge_is_measured_to_the_outer_face_in_every_direction() -> None:
    labels = np.zeros(SIZE, bool)
    labels[10:20, 10:20, 55:58] = True

    assert edge_distance_mm(labels, geometry()) == 2.0


def test_what_lies_inside_the_volume_is_told_on_an_oblique_grid_too() -> None:
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:3, :3] = [[0, np.sin(turn), np.cos(turn)], [0, np.cos(turn), -np.sin(turn)], [1, 0, 0]]
    place = hd.VolumeGeometry(affine=affine, spatial_shape=(4, 4, 4), coordinate_system="PATIENT")

    within = inside(place, 0.5, (-1.0, -3.0, 0.0), (8, 16, 16))

    z, y, x = np.meshgrid(*(np.arange(n) for n in within.shape), indexing="ij")
    points = np.stack([x * 0.5 - 1, y * 0.5 - 3, z * 0.5, np.ones_like(x)], -1)
    index = points @ np.linalg.inv(affine).T
    assert np.array_equal(within, ((index[..., :3] >= -0.5) & (index[..., :3] <= 3.5)).all(-1))
    assert 0 < within.sum() < within.size


# -- the predicted Dice --------------------------------------------------------------------------------------


def made_up(count: int, rng: np.random.Generator) -> tuple[list[dict[str, float]], NDArray[np.float64]]:
    """Features of which two tell the Dice, with noise."""
    features = [
        {"expected_dice": float(e), "entropy": float(h), "outside_share": 0.0}
        for e, h in zip(rng.uniform(0.2, 1, count), rng.uniform(0, 1, count), strict=True)
    ]
    logit = [6 * f["expected_dice"] - 3 * f["entropy"] - 2 + rng.normal(0, 0.4) for f in features]
    return features, np.asarray(1 / (1 + np.exp(-np.array(logit))))


def test_a_fitted_regression_predicts_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(5)
    features, dice = made_up(120, rng)
    names = ("expected_dice", "entropy", "outside_share")

    fitted = fit_predicted_dice(features, dice, names=names, fitted_on="made up")

    unseen, truth = made_up(120, rng)
    predicted = np.array([predict_dice(fitted, row) for row in unseen])
    assert np.abs(predicted - truth).mean() < 0.5 * np.abs(dice.mean() - truth).mean()
    assert (predicted[truth < 0.7] < fitted.threshold).mean() >= 0.95
    assert (predicted[truth > 0.85] < fitted.threshold).mean() <= 0.1
    assert fitted.coefficients[2] == 0.0  # a constant feature tells nothing


def test_where_nothing_was_poor_the_threshold_is_the_poor_dice_itself() -> None:
    fitted = fit_predicted_dice(
        [{"entropy": v} for v in (0.1, 0.2, 0.3)], [0.9, 0.9, 0.88], names=("entropy",)
    )

    assert fitted.threshold == 0.70


def test_a_regression_survives_the_card(card: ModelCard) -> None:
    fitted = fit_predicted_dice(
        [{"entropy": v} for v in (0.1, 0.2, 0.3)], [0.9, 0.8, 0.6], names=("entropy",)
    )

    table = card.model_dump() | {"quality": fitted.model_dump()}

    assert ModelCard.model_validate(table).quality == fitted
