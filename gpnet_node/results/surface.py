"""Writes each structure's surface as an Encapsulated STL (PS3.3 A.85.1): closed, in patient millimetres."""

from importlib.metadata import version

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import EncapsulatedSTLStorage, ExplicitVRLittleEndian

from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import Code, ModelCard, Structure
from gpnet_node.results import codes
from gpnet_node.results.header import RESEARCH_STATEMENT, code_item, finish
from gpnet_node.results.identifiers import MANUFACTURER, JobIdentity, content_digest, uid
from gpnet_node.results.measure import refuse_other_grid, refuse_unmapped
from gpnet_node.results.mesh import Mesh, enclose
from gpnet_node.results.source import Source, read_source

# Title of the document (PS3.16 CID 7061).
MR_MODEL = Code(value="85041-2", scheme="LN", meaning="MR 3D CAM model")
CT_MODEL = Code(value="85040-4", scheme="LN", meaning="CT 3D CAM model")
SOURCE_IMAGE = Code(value="121324", scheme="DCM", meaning="Source image")
# One triangle of a binary STL: little endian, 50 bytes without padding.
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEADER_BYTES = 80


def write_surfaces(
    volume: Volume, labels: LabelMap, card: ModelCard, job: JobIdentity
) -> tuple[Dataset, ...]:
    """Write one Encapsulated STL per structure that is not empty, in the card's order, in one series.

    Each is a closed surface (``results.mesh``) in millimetres of the patient coordinate system (LPS) and in
    the source's frame of reference, with the volume and the centre of mass of the structure's voxels. Two
    structures that touch are smoothed each for itself: their surfaces may part or overlap by less than a
    voxel. The same arguments give the same datasets at any time.

    Raises SelfCheckError for a label that the card does not name or another grid than the volume's,
    UnreadableInstanceError or StorageError where a source file cannot be read again.
    """
    refuse_unmapped(labels, card)
    refuse_other_grid(volume, labels)
    source = read_source(volume)
    digest = content_digest(labels, card, job, f"scikit-image {version('scikit-image')}")
    affine = np.asarray(volume.geometry.affine, dtype=np.float64)
    present = np.bincount(labels.labels.ravel(), minlength=256)
    return tuple(
        _document(
            structure,
            _stl(structure, enclose(labels.labels == structure.number, affine)),
            source,
            card,
            job,
            digest,
        )
        for structure in card.structures
        if present[structure.number]
    )


def _document(
    structure: Structure, stl: bytes, source: Source, card: ModelCard, job: JobIdentity, digest: str
) -> Dataset:
    document = hd.base.SOPClass(
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=uid(job, "stl series", digest),
        series_number=source.result_series_number(4),
        sop_instance_uid=uid(job, f"stl {structure.name}", digest),
        sop_class_uid=EncapsulatedSTLStorage,
        instance_number=structure.number,
        modality="M3D",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    finish(document, source, card, job, "GP-net surfaces")
    document.FrameOfReferenceUID = source.frames[0].frame_of_reference_uid
    document.PositionReferenceIndicator = source.header.get("PositionReferenceIndicator")
    _refer_to_source(document, source)
    # Encapsulated Document module (PS3.3 C.24.2)
    document.AcquisitionDateTime = None
    document.BurnedInAnnotation = "NO"
    document.DocumentTitle = f"{structure.name}. {RESEARCH_STATEMENT}"
    document.VerificationFlag = "UNVERIFIED"
    title = CT_MODEL if source.header.get("Modality") == "CT" else MR_MODEL
    document.ConceptNameCodeSequence = [code_item(title)]
    document.MIMETypeOfEncapsulatedDocument = "model/stl"
    document.EncapsulatedDocumentLength = len(stl)
    document.EncapsulatedDocument = stl
    # Manufacturing 3D Model module (PS3.3 C.35.1)
    document.MeasurementUnitsCodeSequence = [code_item(codes.MM)]
    document.ModelMirroring = "NO"
    document.ContentDescription = f"{structure.type.meaning}, {structure.side}"
    document.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*structure.colour).value)
    document.ModelGroupUID = uid(job, "stl group", digest)
    return document


def _refer_to_source(document: Dataset, source: Source) -> None:
    """Every source instance, as what the model was made of (C.24.2) and by its series (C.12.2)."""
    instances, sources = [], []
    for frame in source.instances:
        instance, made_of = Dataset(), Dataset()
        for reference in (instance, made_of):
            reference.ReferencedSOPClassUID = frame.sop_class_uid
            reference.ReferencedSOPInstanceUID = frame.sop_instance_uid
        made_of.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
        instances.append(instance)
        sources.append(made_of)
    series = Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedInstanceSequence = instances
    document.ReferencedSeriesSequence = [series]
    document.SourceInstanceSequence = sources


def _stl(structure: Structure, mesh: Mesh) -> bytes:
    """Binary STL; its header, which carries no patient data, must not begin with "solid"."""
    corners: NDArray[np.float32] = mesh.vertices.astype("<f4")[mesh.triangles]
    a, b, c = np.moveaxis(corners.astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    facets = np.zeros(len(corners), dtype=_FACET)
    facets["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    facets["corners"] = corners
    header = f"{MANUFACTURER} RESEARCH {structure.name}, mm, patient LPS".encode("ascii", "replace")
    count = len(facets).to_bytes(4, "little")
    return header[:_HEADER_BYTES].ljust(_HEADER_BYTES) + count + facets.tobytes()
