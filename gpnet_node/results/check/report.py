"""What the self-check asks of a report: its references, codes, points and every number."""

from collections.abc import Mapping

import numpy as np

from gpnet_node.model.card import Structure
from gpnet_node.results.acpc import Plan
from gpnet_node.results.check.decode import DecodedReport, SrGroup
from gpnet_node.results.check.findings import Findings
from gpnet_node.results.check.seg import code_key
from gpnet_node.results.check.truth import Truth, asymmetry
from gpnet_node.results.content import Content

# By unit: the report rounds to two or three decimals.
ROUNDING = {"mm3": 0.01, "mm": 0.001, "%": 0.01, "1": 0.001}
# Two ways of summing the same numbers, relative.
ARITHMETIC = 1e-5
# Rounding to 0.001 mm in each direction, and single precision of coordinates (FL, PS3.5 6.2).
POINT_TOLERANCE_MM = 0.002

# Code value of what is measured, and of how it was derived: what to call it.
_WORDS = {
    ("118565006", None): "volume",
    ("centre-x", None): "centre (x)",
    ("centre-y", None): "centre (y)",
    ("centre-z", None): "centre (z)",
    ("110852", "373098007"): "mean signal",
    ("110852", "386136009"): "standard deviation of the signal",
    ("asymmetry", None): "asymmetry",
    ("predicted-dice", None): "predicted Dice",
    ("entropy", None): "entropy",
    ("acpc-left", None): "place left of the mid-AC-PC point",
    ("acpc-anterior", None): "place anterior of the mid-AC-PC point",
    ("acpc-superior", None): "place above the AC-PC plane",
}
_Number = tuple[str, str | None]


def check_report(
    report: DecodedReport,
    seg_instance_uid: str,
    content: Content,
    truth: Mapping[int, Truth],
    findings: Findings,
) -> None:
    """Compare a decoded report with the label map, the card and what else it was to tell."""
    card, volume = content.card, content.volume
    wanted = {frame.sop_instance_uid for frame in volume.frames} | {seg_instance_uid}
    missing = len(wanted - report.evidence)
    findings.expect(not missing, f"the report's evidence lacks {missing} of {len(wanted)} instances")
    measured = [group.segment for group in report.groups]
    findings.expect(
        measured == [structure.number for structure in card.structures],
        f"the report measures segments {measured}, not those of the card",
    )
    groups = {group.segment: group for group in report.groups}
    for structure in card.structures:
        group = groups.get(structure.number)
        if group is None:
            continue
        findings.expect(
            group.seg_instance_uid == seg_instance_uid,
            f"the report's group on {structure.name} refers to another segmentation",
        )
        _check_codes(group, structure, findings)
        _check_point(group, structure, str(volume.geometry.frame_of_reference_uid), truth, findings)
        _check_numbers(group, structure, _expected(structure, truth, content), findings)


def _check_codes(group: SrGroup, structure: Structure, findings: Findings) -> None:
    for word, found, expected in (
        ("finding", group.finding, structure.type),
        ("site", group.site, structure.region),
        ("laterality", group.laterality, structure.laterality),
    ):
        findings.expect(
            found == code_key(expected),
            f"the report's {word} of {structure.name} is {found}, not {code_key(expected)}",
        )


def _check_point(
    group: SrGroup,
    structure: Structure,
    frame_of_reference_uid: str,
    truth: Mapping[int, Truth],
    findings: Findings,
) -> None:
    expected = truth[structure.number].centroid_mm
    if group.point_mm is None or expected is None:
        both = group.point_mm is None and expected is None
        findings.expect(both, f"{structure.name}: report and label map do not both have its centre of mass")
        return
    findings.expect(
        group.point_frame_of_reference_uid == frame_of_reference_uid,
        f"the report's centre of {structure.name} is in another frame of reference",
    )
    off_mm = float(np.linalg.norm(np.array(group.point_mm) - expected))
    findings.expect(
        off_mm <= POINT_TOLERANCE_MM,
        f"the report's centre of {structure.name} is {off_mm:.3f} mm off the label map's",
    )


def _check_numbers(
    group: SrGroup,
    structure: Structure,
    expected: Mapping[_Number, tuple[float, str]],
    findings: Findings,
) -> None:
    for key in sorted(set(group.numbers) ^ set(expected), key=str):
        word = _WORDS.get(key, f"number {key}")
        findings.expect(False, f"{structure.name}: report and label map do not both have its {word}")
    for key, (value, unit) in expected.items():
        if key not in group.numbers:
            continue
        reported, reported_unit = group.numbers[key]
        allowed = ROUNDING[unit] + ARITHMETIC * abs(value)
        findings.expect(
            reported_unit == unit and abs(reported - value) <= allowed,
            f"the report's {_WORDS[key]} of {structure.name} is {reported:.6g} {reported_unit}, "
            f"the label map's {value:.6g} {unit}",
        )


def _expected(
    structure: Structure, truth: Mapping[int, Truth], content: Content
) -> dict[_Number, tuple[float, str]]:
    own, card, quality = truth[structure.number], content.card, content.quality
    left, front, up = _from_commissures(own, content.background.plan)
    x, y, z = (None, None, None) if own.centroid_mm is None else own.centroid_mm.tolist()
    values: dict[_Number, tuple[float | None, str]] = {
        ("118565006", None): (own.volume_mm3, "mm3"),
        ("centre-x", None): (x, "mm"),
        ("centre-y", None): (y, "mm"),
        ("centre-z", None): (z, "mm"),
        ("110852", "373098007"): (own.mean, "1"),
        ("110852", "386136009"): (own.sd, "1"),
        ("asymmetry", None): (asymmetry(structure, truth, card), "%"),
        ("predicted-dice", None): (quality.predicted_dice.get(structure.name), "1"),
        ("entropy", None): (quality.entropy.get(structure.name), "1"),
        ("acpc-left", None): (left, "mm"),
        ("acpc-anterior", None): (front, "mm"),
        ("acpc-superior", None): (up, "mm"),
    }
    return {key: (value, unit) for key, (value, unit) in values.items() if value is not None}


def _from_commissures(own: Truth, plan: Plan | None) -> tuple[float | None, float | None, float | None]:
    """Left, front and up of the middle between the commissures, mm: solved for, not projected."""
    if plan is None or own.centroid_mm is None:
        return None, None, None
    ac, pc, third = (np.array(point) for point in (plan.ac_mm, plan.pc_mm, plan.midline_mm))
    left = np.cross(third - pc, ac - pc)
    left *= np.sign(left[0]) / np.linalg.norm(left)  # towards growing x
    front = (ac - pc) / np.linalg.norm(ac - pc)
    axes = np.stack([left, front, np.cross(front, left)], axis=1)
    x, y, z = np.linalg.solve(axes, own.centroid_mm - (ac + pc) / 2).tolist()
    return x, y, z
