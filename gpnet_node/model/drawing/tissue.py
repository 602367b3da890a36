"""Tissues that the generator draws: which FreeSurfer label is which, and how bright each is."""

from enum import IntEnum


class Tissue(IntEnum):
    """What one voxel of an anatomy is made of."""

    BACKGROUND = 0
    WHITE_MATTER = 1
    CORTEX = 2
    CSF = 3
    THALAMUS = 4
    CAUDATE = 5
    PUTAMEN = 6
    GPE = 7  # before the border is drawn: the whole pallidum
    GPI = 8
    LIMBIC = 9  # hippocampus, amygdala, accumbens
    VENTRAL_DIENCEPHALON = 10
    BRAINSTEM = 11
    STN = 12
    SUBSTANTIA_NIGRA = 13
    RED_NUCLEUS = 14
    INTERNAL_CAPSULE = 15
    VESSEL = 16
    CEREBELLAR_CORTEX = 17
    LAMINA = 18  # medial medullary lamina; drawn, never a label of an anatomy
    ZONA_INCERTA = 19
    CLAUSTRUM = 20
    ANTERIOR_COMMISSURE = 21
    OPTIC_TRACT = 22


HEAD_TISSUE_OFFSET = 24  # skull, skin, fat, eyes ...: sixteen classes of any contrast
TISSUES = HEAD_TISSUE_OFFSET + 16

_GROUPS: dict[Tissue, tuple[int, ...]] = {
    Tissue.WHITE_MATTER: (2, 41, 7, 46, 77, 85, 136, 137, 163, 164, 72),
    Tissue.CORTEX: (3, 42),
    Tissue.CSF: (4, 43, 5, 44, 14, 15, 24, 31, 63),
    Tissue.THALAMUS: (10, 49),
    Tissue.CAUDATE: (11, 50),
    Tissue.PUTAMEN: (12, 51),
    Tissue.GPE: (13, 52),
    Tissue.LIMBIC: (17, 53, 18, 54, 26, 58),
    Tissue.VENTRAL_DIENCEPHALON: (28, 60),
    Tissue.BRAINSTEM: (16,),
    Tissue.VESSEL: (30, 62),
    Tissue.CEREBELLAR_CORTEX: (8, 47),
}
FREESURFER_TISSUE: dict[int, Tissue] = {
    label: tissue for tissue, labels in _GROUPS.items() for label in labels
}

# Mean signal over subjects, white matter = 1.00: (low, high). Estimates, not measurements.
T2: dict[Tissue, tuple[float, float]] = {
    Tissue.WHITE_MATTER: (0.95, 1.05),
    Tissue.CORTEX: (1.25, 1.55),
    Tissue.CSF: (2.5, 3.8),
    Tissue.THALAMUS: (1.00, 1.25),
    Tissue.CAUDATE: (1.05, 1.30),
    Tissue.PUTAMEN: (0.90, 1.20),
    Tissue.GPE: (0.42, 0.70),
    Tissue.LIMBIC: (1.20, 1.50),
    Tissue.VENTRAL_DIENCEPHALON: (0.85, 1.10),
    Tissue.BRAINSTEM: (0.90, 1.15),
    Tissue.STN: (0.50, 0.75),
    Tissue.SUBSTANTIA_NIGRA: (0.45, 0.75),
    Tissue.RED_NUCLEUS: (0.50, 0.80),
    Tissue.INTERNAL_CAPSULE: (0.95, 1.20),
    Tissue.VESSEL: (0.1, 0.4),
    Tissue.CEREBELLAR_CORTEX: (1.15, 1.45),
    Tissue.ZONA_INCERTA: (0.80, 1.05),
    Tissue.CLAUSTRUM: (1.05, 1.30),
    Tissue.ANTERIOR_COMMISSURE: (0.85, 1.05),
    Tissue.OPTIC_TRACT: (0.90, 1.15),
}
T1: dict[Tissue, tuple[float, float]] = {
    Tissue.WHITE_MATTER: (0.95, 1.05),
    Tissue.CORTEX: (0.55, 0.75),
    Tissue.CSF: (0.10, 0.30),
    Tissue.THALAMUS: (0.75, 0.90),
    Tissue.CAUDATE: (0.60, 0.78),
    Tissue.PUTAMEN: (0.65, 0.82),
    Tissue.GPE: (0.80, 0.98),
    Tissue.LIMBIC: (0.55, 0.75),
    Tissue.VENTRAL_DIENCEPHALON: (0.80, 0.95),
    Tissue.BRAINSTEM: (0.85, 0.98),
    Tissue.STN: (0.80, 0.95),
    Tissue.SUBSTANTIA_NIGRA: (0.75, 0.92),
    Tissue.RED_NUCLEUS: (0.80, 0.95),
    Tissue.INTERNAL_CAPSULE: (0.95, 1.05),
    Tissue.VESSEL: (0.2, 1.6),
    Tissue.CEREBELLAR_CORTEX: (0.55, 0.75),
    Tissue.ZONA_INCERTA: (0.85, 0.98),
    Tissue.CLAUSTRUM: (0.60, 0.78),
    Tissue.ANTERIOR_COMMISSURE: (0.95, 1.05),
    Tissue.OPTIC_TRACT: (0.90, 1.05),
}
T2STAR: dict[Tissue, tuple[float, float]] = T2 | {
    Tissue.CSF: (0.9, 1.3),
    Tissue.CORTEX: (1.05, 1.30),
    Tissue.GPE: (0.30, 0.60),
    Tissue.STN: (0.35, 0.65),
    Tissue.SUBSTANTIA_NIGRA: (0.30, 0.60),
    Tissue.VESSEL: (0.1, 0.3),
}

# Tissues that store iron: the share of their range that age decides (it grows fastest in the young).
IRON: dict[Tissue, float] = {
    Tissue.GPE: 0.6,
    Tissue.PUTAMEN: 0.6,
    Tissue.CAUDATE: 0.4,
    Tissue.SUBSTANTIA_NIGRA: 0.4,
    Tissue.RED_NUCLEUS: 0.4,
    Tissue.STN: 0.4,
}
