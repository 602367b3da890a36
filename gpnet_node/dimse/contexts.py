"""Which SOP classes and transfer syntaxes a peer is offered (PS3.8 7.1.1.13)."""

from collections.abc import Iterable

from pydicom.uid import UID, Comprehensive3DSRStorage, SegmentationStorage
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, register_uid, uid_to_service_class  # type: ignore[attr-defined]

from gpnet_node.config import PeerConfig
from gpnet_node.intake.keeping import IMAGE_CLASSES, TRANSFER_SYNTAXES

RESULT_CLASSES = (SegmentationStorage, Comprehensive3DSRStorage)

_DICOM_ROOT = "1.2.840.10008."  # public classes; consoles send raw data under roots of their own
_MAX_PRIVATE_CLASSES = 128  # as many as one association can propose


def supported_contexts(peer: PeerConfig, proposed: Iterable[str]) -> list[PresentationContext]:
    """Return what ``peer`` may use of the abstract syntaxes that it proposes, besides C-ECHO.

    A class or syntax left out here is refused during negotiation with the result of its own: 3, abstract
    syntax not supported, or 4, transfer syntaxes not supported (PS3.8 9.3.3.2).
    """
    classes: set[str] = set()
    if peer.may_store:
        classes |= {*IMAGE_CLASSES, *RESULT_CLASSES}
        if peer.accept_other_classes:
            private = [uid for uid in proposed if not uid.startswith(_DICOM_ROOT)][:_MAX_PRIVATE_CLASSES]
            _register_storage(private)
            classes |= {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
            classes |= set(private)
    contexts = [build_context(UID(uid), list(TRANSFER_SYNTAXES)) for uid in sorted(classes)]
    return [build_context(Verification), *contexts]


def _register_storage(private_classes: Iterable[str]) -> None:
    """Tell pynetdicom that these private classes are stored like any other."""
    for uid in private_classes:
        if not issubclass(uid_to_service_class(uid), StorageServiceClass):
            register_uid(uid, f"PrivateStorage_{uid.replace('.', '_')}", StorageServiceClass)
