"""Tissues that the generator draws, and which label of a FreeSurfer map is which."""

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


HEAD_TISSUE_OFFSET = 20  # skull, skin, fat, eyes ...: sixteen classes of any contrast

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
