"""How far a segmentation may be trusted, from what the network itself was unsure of, and from the norms.

The predicted Dice is a regression on these features, fitted on drawn images whose truth is known; its
coefficients stand in the model card. Entropy and the expected Dice are the network's own opinion, which can
be confidently wrong: volume, asymmetry and the place in the volume do not ask it.
"""

from collections.abc import Iterator, Mapping, Sequence

import cc3d
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import DiceRegression, ModelCard, Structure
from gpnet_node.model.patient_grid import edge_distance_mm, inside
from gpnet_node.model.segmentation import Quality, SideProbability

FEATURES = (
    "expected_dice_logit",  # of 2 sum(p y) / (sum p + sum y): the Dice if the probabilities were right
    "agreement_logit",  # of the Dice between the moved boxes and their mean
    "entropy",  # mean over the structure, nats
    "interface_entropy",  # mean over the voxels where GPe and GPi touch, nats
    "volume_deviation",  # |ln(volume / geometric mean of the conventional range)|
    "share_deviation",  # |GPi / (GPe + GPi) - that of the conventional volumes|
    "asymmetry",  # |left - right| / their mean
    "outside_share",
)
POOR_DICE = 0.70  # a side below this must not pass unseen
_CAUGHT = 0.95  # share of the poor that the threshold is set to catch where it is fitted
_RIDGE = 1.0
_CLIPPED = (0.02, 0.98)  # Dice, before its logit


def entropy_nats(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of each voxel's classes: (c, z, y, x) -> (z, y, x)."""
    entropy: NDArray[np.float32] = -(probability * np.log(probability.clip(1e-7))).sum(0)
    return entropy


def outside_share(labelled: NDArray[np.bool_], within: NDArray[np.bool_]) -> float:
    """Share of the labelled voxels that lie beyond the volume; 0 where nothing is labelled."""
    count = int(labelled.sum())
    return float((labelled & ~within).sum() / count) if count else 0.0


def assess(labels: LabelMap, sides: Mapping[str, SideProbability], card: ModelCard) -> Quality:
    """Quality of a label map, from the probabilities that it was made of.

    Without a ``[quality]`` table in the card no Dice is predicted, and none is a reason for a review; the
    limits of ``[review]`` hold in any case. Raises NoPallidumError where one side has no label.
    """
    voxel_mm3 = abs(float(np.linalg.det(np.asarray(labels.geometry.affine, float)[:3, :3])))
    counts = np.bincount(labels.labels.ravel(), minlength=256)
    volumes = {s.name: float(counts[s.number]) * voxel_mm3 for s in card.structures}
    lesion, outside, edge = {}, {}, {}
    for name, side in sides.items():
        numbers = [s.number for s in card.structures if s.side == name]
        edge[name] = edge_distance_mm(np.isin(labels.labels, numbers), labels.geometry)
        lesion[name] = _lesion_mm3(side)
        labelled = side.probability.argmax(0) > 0
        within = inside(labels.geometry, side.spacing_mm, side.origin_mm, labelled.shape)
        outside[name] = outside_share(labelled, within)
    features = {
        s.name: _features(s, sides[s.side], volumes, card) | {"outside_share": outside[s.side]}
        for s in card.structures
        if s.side in sides
    }
    regression = card.quality
    predicted = {n: predict_dice(regression, f) for n, f in features.items()} if regression else {}
    found = Quality(
        entropy={name: values["entropy"] for name, values in features.items()},
        predicted_dice=predicted,
        lesion_mm3=lesion,
        outside_share=outside,
        edge_distance_mm=edge,
        features=features,
    )
    return Quality(**{**vars(found), "reasons": tuple(_reasons(found, volumes, card))})


def _features(
    structure: Structure, side: SideProbability, volumes: Mapping[str, float], card: ModelCard
) -> dict[str, float]:
    entropy, classes = entropy_nats(side.probability), side.probability.argmax(0)
    mine, share = classes == structure.channel, side.probability[structure.channel]
    touching = _interface(classes)
    expected = float(2 * share[mine].sum() / max(share.sum() + mine.sum(), 1e-6))
    return {
        "expected_dice": expected,
        "expected_dice_logit": float(_logit(expected)),
        "agreement_logit": float(_logit(side.agreement[structure.channel - 1] if side.agreement else 1.0)),
        "entropy": float(entropy[mine].mean()) if mine.any() else float(np.log(3)),
        "interface_entropy": float(entropy[touching].mean()) if touching.any() else float(np.log(3)),
        "volume_deviation": min(
            2.0, abs(float(np.log(max(volumes[structure.name], 1.0) / _conventional_mm3(structure))))
        ),
        "share_deviation": _share_deviation(structure, volumes, card),
        "asymmetry": abs(_asymmetry_percent(structure, volumes, card)) / 100,
    }


def _share_deviation(structure: Structure, volumes: Mapping[str, float], card: ModelCard) -> float:
    """How far the structure's share of its side's volume is from that of the conventional volumes."""
    side = [s for s in card.structures if s.side == structure.side]
    usual = _conventional_mm3(structure) / sum(_conventional_mm3(s) for s in side)
    found = volumes[structure.name] / max(sum(volumes[s.name] for s in side), 1.0)
    return abs(found - usual)


def _conventional_mm3(structure: Structure) -> float:
    return float(np.sqrt(np.prod(structure.volume_range_mm3)))


def _interface(classes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Voxels of GPe with a face neighbour in GPi, and the other way round."""
    touching = np.zeros(classes.shape, bool)
    for axis in range(3):
        one, other = (np.moveaxis(classes, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        meet = (one > 0) & (other > 0) & (one != other)
        view = np.moveaxis(touching, axis, 0)
        view[:-1] |= meet
        view[1:] |= meet
    return touching


def _lesion_mm3(side: SideProbability) -> float:
    """Volume of the lesions and leads (26-connected) that reach to within a voxel of the pallidum."""
    lesions = cc3d.connected_components(side.lesion > 0.5, connectivity=26)
    pallidum = sitk.GetImageFromArray((side.probability.argmax(0) > 0).astype(np.uint8))
    near = sitk.GetArrayFromImage(sitk.BinaryDilate(pallidum, [1, 1, 1], sitk.sitkBox)) > 0
    touching = np.setdiff1d(np.unique(lesions[near]), [0])
    return float(np.isin(lesions, touching).sum()) * side.spacing_mm**3 if touching.size else 0.0


def _asymmetry_percent(structure: Structure, volumes: Mapping[str, float], card: ModelCard) -> float:
    """100 (left - right) / their mean of a structure and its counterpart; 0 where there is none."""
    pair = {s.side: volumes[s.name] for s in card.structures if s.type == structure.type}
    if len(pair) < 2 or not sum(pair.values()):
        return 0.0
    return 200 * (pair["left"] - pair["right"]) / (pair["left"] + pair["right"])


# -- why a person must look ----------------------------------------------------------------------------------


def _reasons(quality: Quality, volumes: Mapping[str, float], card: ModelCard) -> Iterator[str]:
    limits = card.review
    for side, share in quality.outside_share.items():
        if share > limits.outside_share:
            yield f"the {side} pallidum reaches beyond the volume by {100 * share:.0f} % of what was found"
        elif quality.edge_distance_mm[side] < limits.edge_mm:
            yield (
                f"the {side} pallidum lies {quality.edge_distance_mm[side]:.1f} mm from the edge of the "
                f"volume, less than {limits.edge_mm:g} mm"
            )
        if quality.lesion_mm3[side] > limits.lesion_mm3:
            yield f"a lesion or lead of {quality.lesion_mm3[side]:.0f} mm3 lies in or at the {side} pallidum"
    for structure in card.structures:
        yield from _doubts(structure, quality, volumes, card)


def _doubts(
    structure: Structure, quality: Quality, volumes: Mapping[str, float], card: ModelCard
) -> Iterator[str]:
    name, limits = structure.name, card.review
    dice = quality.predicted_dice.get(name)
    if card.quality is not None and dice is not None and dice < card.quality.threshold:
        yield f"{name}: the predicted Dice of {dice:.2f} is below {card.quality.threshold:.2f}"
    low, high = structure.volume_range_mm3
    if not low * (1 - limits.volume_margin) <= volumes[name] <= high * (1 + limits.volume_margin):
        yield (
            f"{name} measures {volumes[name]:.0f} mm3, more than {100 * limits.volume_margin:.0f} % beyond "
            f"the conventional {low:g}-{high:g} mm3"
        )
    asymmetry = _asymmetry_percent(structure, volumes, card)
    if structure.side == "left" and abs(asymmetry) > limits.asymmetry_percent:
        yield (
            f"{structure.type.meaning}: left and right differ by {abs(asymmetry):.0f} % of their mean, more "
            f"than {limits.asymmetry_percent:g} %"
        )


# -- the predicted Dice --------------------------------------------------------------------------------------


def predict_dice(regression: DiceRegression, features: Mapping[str, float]) -> float:
    """Dice in 0-1 that the regression expects of a structure with these features."""
    values = [features[name] for name in regression.features]
    logit = regression.intercept + float(np.dot(regression.coefficients, values))
    return float(1 / (1 + np.exp(-logit)))


def fit_predicted_dice(
    features: Sequence[Mapping[str, float]],
    dice: Sequence[float] | NDArray[np.float64],
    *,
    names: Sequence[str] = FEATURES,
    fitted_on: str = "",
) -> DiceRegression:
    """Ridge regression of logit(Dice) on the named features, one row per structure of a side.

    The threshold lies above the predictions of 95 % of the rows whose Dice is below 0.70. Features are scaled
    before the ridge; a constant one gets no weight.
    """
    rows = np.array([[row[name] for name in names] for row in features])
    target = _logit(np.asarray(dice, float))
    mean, scale = rows.mean(0), rows.std(0)
    scaled = (rows - mean) / np.where(scale > 1e-9, scale, np.inf)
    penalty = _RIDGE * np.eye(len(names))
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (target - target.mean()))
    coefficients = weights / np.where(scale > 1e-9, scale, np.inf)
    fitted = DiceRegression(
        features=tuple(names),
        coefficients=tuple(float(c) for c in coefficients),
        intercept=float(target.mean() - coefficients @ mean),
        threshold=POOR_DICE,
        fitted_on=fitted_on,
    )
    predicted = np.array([predict_dice(fitted, row) for row in features])
    return fitted.model_copy(update={"threshold": _threshold(predicted, np.asarray(dice, float))})


def _logit(dice: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a Dice, kept away from 0 and 1."""
    clipped = np.clip(np.asarray(dice, float), *_CLIPPED)
    logit: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return logit


def _threshold(predicted: NDArray[np.float64], dice: NDArray[np.float64]) -> float:
    """Lowest threshold that catches enough of the poor: half way to the next prediction above them."""
    poor = np.sort(predicted[dice < POOR_DICE])
    if not poor.size:
        return POOR_DICE
    last = float(poor[min(len(poor) - 1, int(np.ceil(_CAUGHT * len(poor))) - 1)])
    above = np.sort(predicted[predicted > last])
    return (last + float(above[0])) / 2 if above.size else last
