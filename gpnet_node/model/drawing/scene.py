"""What one drawn image shows and how it was taken: the named conditions by which results are broken down."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.drawing.tissue import IRON, T1, T2, T2STAR, TISSUES, Tissue


class Contrast(StrEnum):
    """Weighting of the image."""

    T2 = "t2"  # 7T T2 TSE
    T2STAR = "t2star"  # T2* or SWI
    T1 = "t1"  # MP2RAGE
    RANDOM = "random"  # any mean for any tissue


class Visibility(StrEnum):
    """How well the medial medullary lamina is seen (Ide 2016: not always)."""

    CLEAR = "clear"
    PARTIAL = "partial"  # in places
    FAINT = "faint"
    ABSENT = "absent"


class Lesion(StrEnum):
    """What patients have in or near the pallidum."""

    CALCIFICATION = "calcification"
    HAEMORRHAGE = "haemorrhage"
    PERIVASCULAR_SPACES = "perivascular spaces"
    LACUNE = "lacune"
    LEAD = "lead"  # the void around an electrode
    PALLIDOTOMY = "pallidotomy"


# How much further than its own surface an iron or calcium void reaches, by how the image is weighted.
BLOOMING_MM = {Contrast.T2: 0.0, Contrast.T2STAR: 0.7, Contrast.T1: -0.2, Contrast.RANDOM: 0.0}


class Artefact(StrEnum):
    """What goes wrong while the image is taken."""

    GHOSTING = "ghosting"
    MOTION = "motion"
    SLICE_MOTION = "motion between slices"


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """How far drawings may go; every number is a named setting."""

    contrast_shares: tuple[float, float, float, float] = (0.50, 0.15, 0.22, 0.13)  # in the order of Contrast
    visibility_shares: tuple[float, float, float, float] = (0.30, 0.35, 0.20, 0.15)  # in that of Visibility
    lesion_share: float = 0.20  # of the sides
    artefact_share: float = 0.15
    ventricle_share: float = 0.25
    drop_out_share: float = 0.25
    cut_share: float = 0.06  # slabs that end in or near the pallidum
    age_years: tuple[float, float] = (20.0, 85.0)
    rotation_sd_degrees: float = 9.0
    anisotropy_sd: float = 0.05
    pallidum_mm3: tuple[float, float] = (1300.0, 2200.0)
    gpi_share: tuple[float, float] = (0.27, 0.40)
    border_shift_sd_mm: float = 1.0
    border_tilt_sd_degrees: float = 8.0
    border_curvature_sd_per_mm: float = 0.012
    border_wave_mm: float = 0.4
    elastic_mm: float = 1.2
    offset_sd_mm: float = 2.0
    ventricle_mm: float = 3.5
    slice_mm: tuple[float, float] = (0.4, 2.0)
    in_plane_mm: tuple[float, float] = (0.3, 1.0)
    bias: float = 0.35
    drop_out: tuple[float, float] = (0.2, 0.6)
    snr: tuple[float, float] = (8.0, 40.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Conditions of one image. ``segments_differ``: GPi has a signal of its own (a control has not).

    ``ventricle_mm``: how far fluid spaces are widened. ``drop_out``: share of the signal that is lost in the
    middle of a B1 drop-out, 0 for none. ``snr``: mean signal over the deviation of the noise.
    """

    contrast: Contrast
    visibility: Visibility
    age_years: float = 55.0
    segments_differ: bool = True
    lesions: tuple[Lesion, ...] = ()
    lesion_sides: tuple[str, ...] = ("left", "right")
    artefact: Artefact | None = None
    ventricle_mm: float = 0.0
    drop_out: float = 0.0
    bias: float = 0.2
    snr: float = 24.0


def draw_scene(rng: np.random.Generator, settings: DrawSettings) -> Scene:
    """Conditions at the shares that the settings name."""
    lesions: tuple[Lesion, ...] = ()
    if rng.random() < settings.lesion_share:
        lesions = (list(Lesion)[rng.integers(len(Lesion))],)
    return Scene(
        contrast=list(Contrast)[_index(rng, settings.contrast_shares)],
        visibility=list(Visibility)[_index(rng, settings.visibility_shares)],
        age_years=float(rng.uniform(*settings.age_years)),
        lesions=lesions,
        lesion_sides=(("left",), ("right",), ("left", "right"))[rng.integers(3)],
        artefact=list(Artefact)[rng.integers(len(Artefact))]
        if rng.random() < settings.artefact_share
        else None,
        ventricle_mm=float(rng.uniform(0, settings.ventricle_mm))
        if rng.random() < settings.ventricle_share
        else 0.0,
        drop_out=float(rng.uniform(*settings.drop_out)) if rng.random() < settings.drop_out_share else 0.0,
        bias=float(rng.uniform(0, settings.bias)),
        snr=float(rng.uniform(*settings.snr)),
    )


def _index(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    return int(rng.choice(len(shares), p=np.array(shares) / sum(shares)))


def signals(rng: np.random.Generator, scene: Scene) -> NDArray[np.float32]:
    """Mean signal of each tissue, white matter about 1; iron darkens with age on T2 and T2*."""
    means = rng.uniform(0.05, 2.0, TISSUES)
    means[Tissue.BACKGROUND] = rng.uniform(0, 0.1)
    if scene.contrast is not Contrast.RANDOM:
        table = {Contrast.T2: T2, Contrast.T2STAR: T2STAR, Contrast.T1: T1}[scene.contrast]
        dark = scene.contrast is not Contrast.T1
        old = (scene.age_years - 20) / 65
        for tissue, (low, high) in table.items():
            aged = IRON.get(tissue, 0.0) if dark else 0.0
            means[tissue] = high - (high - low) * (aged * old + (1 - aged) * rng.random())
        gpi, lamina = ((-0.05, 0.12), (0.12, 0.35)) if dark else ((-0.04, 0.04), (0.0, 0.12))
        means[Tissue.GPI] = means[Tissue.GPE] + rng.uniform(*gpi)
        means[Tissue.LAMINA] = means[Tissue.GPE] + rng.uniform(*lamina)
    if not scene.segments_differ:
        means[Tissue.GPI] = means[Tissue.GPE]
    return means.astype(np.float32)
