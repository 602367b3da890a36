"""Who writes a result, and the UIDs of what is written: the same job gives the same UIDs."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import numpy as np

from gpnet_node.imaging.gate import OWN_MANUFACTURER
from gpnet_node.imaging.volume import LabelMap
from gpnet_node.model.card import ModelCard

# Manufacturer (0008,0070) of everything that this program writes; the gate knows its own results by it.
MANUFACTURER = OWN_MANUFACTURER
# Names this program as a DICOM implementation (PS3.7 D.3.3.2); drawn once, kept for ever.
IMPLEMENTATION_CLASS_UID = "2.25.107248152653131904442776117504895928789"
IMPLEMENTATION_VERSION_NAME = "GPNET_NODE"
# Raise it when the writers change what they write: other content must have another UID.
WRITER_VERSION = "3"

_NAMESPACE = uuid.UUID("a5628745-8fde-40f6-aecd-baff27eebb77")


@dataclass(frozen=True, kw_only=True)
class JobIdentity:
    """What a result takes from its job: everything that would differ if it were asked of the clock.

    ``created_at`` carries a time zone; every date and time in the results is made of it, and told in that
    zone where the source names none.
    """

    job_uid: str
    created_at: datetime
    node_ae_title: str
    software_version: str

    def __post_init__(self) -> None:
        """Refuse an identity that would leave dates or UIDs open; that would be our own mistake."""
        if self.created_at.tzinfo is None:
            raise ValueError("created_at needs a time zone")
        if not self.job_uid:
            raise ValueError("job_uid is empty")


def uid(job: JobIdentity, purpose: str, digest: str) -> str:
    """The UID for one purpose within one job's result: a name-based UUID under 2.25 (PS3.5 B.2).

    Same job, purpose and digest: same UID, on any machine and at any time.
    """
    return _named(f"{job.job_uid}/{purpose}/{digest}")


def device_uid(job: JobIdentity) -> str:
    """UID of this node as an observer (PS3.16 TID 1004): the same for all jobs of one AE title."""
    return _named(f"device/{MANUFACTURER}/{job.node_ae_title}")


def content_digest(labels: LabelMap, card: ModelCard, job: JobIdentity, *options: str) -> str:
    """SHA-256 over what decides the bytes of a result: labels, grid, model, node, writers and options."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(labels.labels).tobytes())
    digest.update(repr(labels.labels.shape).encode())
    digest.update(np.ascontiguousarray(labels.geometry.affine, dtype="<f8").tobytes())
    grid = str(labels.geometry.frame_of_reference_uid)
    return text_digest(job, digest.hexdigest(), grid, card.model_dump_json(), *options)


def text_digest(job: JobIdentity, *texts: str) -> str:
    """SHA-256 over texts, node and writers: of a result that has no label map."""
    writers = (WRITER_VERSION, job.software_version, *(f"{name} {version(name)}" for name in _WRITERS))
    node = (job.node_ae_title, f"{job.created_at:%z}")
    digest = hashlib.sha256()
    for text in (*texts, *node, *writers):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


_WRITERS = ("highdicom", "pydicom")


def _named(name: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
