"""Whether a peer holds what it stored, by C-FIND, where it offers no storage commitment (PS3.4 C)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
)

from gpnet_node.config import NodeConfig, PeerConfig
from gpnet_node.dimse.sender import associate
from gpnet_node.errors import PermanentPeerError, TransientPeerError
from gpnet_node.store.versions import UNREADABLE

_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_SUCCESS = 0x0000
_PENDING = (0xFF00, 0xFF01)


def find_held(peer: PeerConfig, paths: Sequence[Path], *, node: NodeConfig) -> Mapping[str, bool]:
    """Say of each file's SOP instance whether the peer finds it, by its UID.

    A file that cannot be read is left out. Raises TransientPeerError and PermanentPeerError.
    """
    association = associate(peer, [build_context(StudyRootQueryRetrieveInformationModelFind)], node)
    try:
        if not association.accepted_contexts:
            raise PermanentPeerError(f"peer {peer.name} does not answer queries")
        wanted = [it for it in map(_keys, paths) if it is not None]
        return {str(it.SOPInstanceUID): _is_held(association, peer, it) for it in wanted}
    finally:
        if association.is_established:
            association.release()


def _keys(path: Path) -> Dataset | None:
    try:
        keys: Dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYS))
        return keys if all(key in keys for key in _KEYS) else None
    except (OSError, *UNREADABLE):
        return None


def _is_held(association: Association, peer: PeerConfig, wanted: Dataset) -> bool:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for key in _KEYS:
        setattr(query, key, wanted[key].value)
    found = False
    for status, identifier in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
        if "Status" not in status or status.Status not in (_SUCCESS, *_PENDING):
            raise TransientPeerError(f"peer {peer.name} did not answer a query for what it stored")
        found = found or (
            identifier is not None and identifier.get("SOPInstanceUID") == wanted.SOPInstanceUID
        )
    return found
