"""Small cohorts in BIDS derivatives layout, written where a test asks for them."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

SPACING_MM = 1.0
SHAPE = (32, 36, 72)  # (z, y, x)
CENTRES = {"left": (15.8, 17.7, 54.3), "right": (15.8, 17.7, 16.7)}  # mirrored at the middle of x, LPS
VALUES = {("left", "GPe"): 1, ("left", "GPi"): 2, ("right", "GPe"): 3, ("right", "GPi"): 4}
SIDED = {value: f"{side} {name}" for (side, name), value in VALUES.items()}


def labels() -> NDArray[np.uint8]:
    """Two ellipsoids, GPi medial of GPe, (z, y, x) along LPS."""
    z, y, x = np.indices(SHAPE)
    drawn = np.zeros(SHAPE, np.uint8)
    for side, (cz, cy, cx) in CENTRES.items():
        inside = ((z - cz) / 6) ** 2 + ((y - cy) / 9) ** 2 + ((x - cx) / 6) ** 2 < 1
        medial = x < cx - 1 if side == "left" else x > cx + 1
        drawn[inside] = VALUES[side, "GPe"]
        drawn[inside & medial] = VALUES[side, "GPi"]
    return drawn


def picture(drawn: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Dark pallida on a brighter ground, with a bright marker behind the left one."""
    signal = np.where(drawn > 0, 40.0, 100.0) + 10 * np.isin(drawn, (2, 4))
    signal[14:18, 29:32, 52:56] = 250
    noise = np.random.default_rng(0).normal(0, 2, drawn.shape)
    shown: NDArray[np.float32] = (signal + noise).astype(np.float32)
    return shown


def volume(values: NDArray[np.generic], *, flipped: bool = False) -> sitk.Image:
    """Along LPS; ``flipped``: the same places, stored from left to right."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values[..., ::-1] if flipped else values))
    image.SetSpacing([SPACING_MM] * 3)
    if flipped:
        image.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, 1])
        image.SetOrigin([SPACING_MM * (values.shape[2] - 1) - 35.5, -18, -16])
    else:
        image.SetOrigin([-35.5, -18, -16])
    return image


def write_subject(
    folder: Path,
    name: str,
    *,
    session: str = "",
    names: dict[int, str] | None = None,
    values: NDArray[np.uint8] | None = None,
    flipped: bool = False,
) -> Path:
    """One image with its labels and table; the folder ``anat`` that they are in."""
    anat = folder / name / session / "anat"
    anat.mkdir(parents=True)
    drawn = labels()
    prefix = f"{name}_{session}" if session else name
    sitk.WriteImage(volume(picture(drawn), flipped=flipped), str(anat / f"{prefix}_T2w.nii.gz"))
    shown = drawn if values is None else values
    sitk.WriteImage(volume(shown, flipped=flipped), str(anat / f"{prefix}_desc-gp_dseg.nii.gz"))
    rows = "".join(f"{value}\t{label}\n" for value, label in (names or SIDED).items())
    (anat / f"{prefix}_desc-gp_dseg.tsv").write_text(f"index\tname\n{rows}", encoding="utf-8")
    return anat
