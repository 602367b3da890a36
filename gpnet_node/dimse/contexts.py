"""Which SOP classes and transfer syntaxes a peer is offered (PS3.8 7.1.1.13)."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedSTLStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    Verification,
    register_uid,
    uid_to_service_class,
)

from gpnet_node.config import PeerConfig
from gpnet_node.intake.keeping import IMAGE_CLASSES, TRANSFER_SYNTAXES
from gpnet_node.store.attributes import Level
from gpnet_node.store.instance import is_safe_uid

# What this node writes itself and few others do: a PACS may route it back. Key objects may reject images.
RESULT_CLASSES = (
    SegmentationStorage,
    UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation Storage, newer than the table of names
    Comprehensive3DSRStorage,
    RTStructureSetStorage,
    EncapsulatedSTLStorage,
    KeyObjectSelectionDocumentStorage,
)

# What pixels are decoded to for a peer that does not take them as they are stored; also for what has none.
DECODED_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@dataclass(frozen=True, kw_only=True)
class QueryModel:
    """A query/retrieve SOP class: its information model's levels, highest first, and its service."""

    levels: tuple[Level, ...]
    request: type[C_FIND] | type[C_MOVE] | type[C_GET]


_STUDY_ROOT = (Level.STUDY, Level.SERIES, Level.IMAGE)
QUERY_MODELS: Mapping[str, QueryModel] = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.2.1.1": QueryModel(levels=tuple(Level), request=C_FIND),
        "1.2.840.10008.5.1.4.1.2.1.2": QueryModel(levels=tuple(Level), request=C_MOVE),
        "1.2.840.10008.5.1.4.1.2.1.3": QueryModel(levels=tuple(Level), request=C_GET),
        "1.2.840.10008.5.1.4.1.2.2.1": QueryModel(levels=_STUDY_ROOT, request=C_FIND),
        "1.2.840.10008.5.1.4.1.2.2.2": QueryModel(levels=_STUDY_ROOT, request=C_MOVE),
        "1.2.840.10008.5.1.4.1.2.2.3": QueryModel(levels=_STUDY_ROOT, request=C_GET),
    }
)  # PS3.4 C.6.1.3, C.6.2.3
_DICOM_ROOT = "1.2.840.10008."  # public classes; consoles send raw data under roots of their own
_MAX_PRIVATE_CLASSES = 128  # as many as one association can propose


def supported_contexts(
    peer: PeerConfig, proposed: Iterable[str], *, taken: Iterable[str] = ()
) -> list[PresentationContext]:
    """Return what ``peer`` may use of the abstract syntaxes that it proposes, besides C-ECHO.

    ``taken``: the classes for which it proposes to be the SCP, so that it is sent them in answer to a C-GET
    (PS3.4 C.5.3, PS3.7 D.3.3.4).

    A class or syntax left out here is refused during negotiation with the result of its own: 3, abstract
    syntax not supported, or 4, transfer syntaxes not supported (PS3.8 9.3.3.2).
    """
    proposed = [uid for uid in proposed if is_safe_uid(uid)]
    classes: set[str] = set()
    fetched = set(taken) & set(proposed) if peer.may_retrieve else set()
    if peer.may_store:
        classes |= {*IMAGE_CLASSES, *RESULT_CLASSES}
        if peer.accept_other_classes:
            private = [uid for uid in proposed if not uid.startswith(_DICOM_ROOT)][:_MAX_PRIVATE_CLASSES]
            _register_storage(private)
            classes |= {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
            classes |= set(private)
    _register_storage(uid for uid in fetched if not uid.startswith(_DICOM_ROOT))
    fetched = {uid for uid in fetched if issubclass(uid_to_service_class(uid), StorageServiceClass)}
    contexts = [copy(_stored(uid)) for uid in sorted((classes | fetched) & set(proposed))]
    for context in contexts:
        uid = str(context.abstract_syntax)
        if uid in fetched:
            context.scu_role, context.scp_role = uid in classes, True
    return [build_context(Verification), *_notice_contexts(peer), *_query_contexts(peer), *contexts]


@lru_cache(maxsize=1024)
def _stored(uid: str) -> PresentationContext:
    """Return the context of a storage class, to be copied: it is made slowly, and a hundred are proposed."""
    return build_context(UID(uid), list(TRANSFER_SYNTAXES))


def _notice_contexts(peer: PeerConfig) -> list[PresentationContext]:
    """What a peer may say of instances: which it has made, of which it wants to be rid, which it keeps."""
    contexts = []
    if peer.may_report:
        contexts.append(build_context(ModalityPerformedProcedureStep, list(DECODED_SYNTAXES)))
    if peer.may_commit or peer.confirm == "commitment":
        commitment = build_context(StorageCommitmentPushModel, list(DECODED_SYNTAXES))
        commitment.scu_role, commitment.scp_role = peer.may_commit, peer.confirm == "commitment"
        contexts.append(commitment)
    return contexts


def _query_contexts(peer: PeerConfig) -> list[PresentationContext]:
    allowed = {C_FIND: peer.may_query, C_MOVE: peer.may_retrieve, C_GET: peer.may_retrieve}
    return [
        build_context(UID(uid), list(DECODED_SYNTAXES))
        for uid, model in QUERY_MODELS.items()
        if allowed[model.request]
    ]


def _register_storage(private_classes: Iterable[str]) -> None:
    """Tell pynetdicom that these private classes are stored like any other."""
    for uid in private_classes:
        if not issubclass(uid_to_service_class(uid), StorageServiceClass):
            register_uid(uid, f"PrivateStorage_{uid.replace('.', '_')}", StorageServiceClass)
