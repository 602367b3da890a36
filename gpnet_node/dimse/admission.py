"""Who may open an association: peers that call us by our name from where they may, while there is room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, uid_to_service_class  # type: ignore[attr-defined]

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.store.archive import Archive


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why an association is not accepted (PS3.8 9.3.4); by default permanent, by the service user."""

    sentence: str
    reason: int
    result: int = 1
    source: int = 1

    @property
    def is_for_good(self) -> bool:
        """Whether it is about who calls, not about when."""
        return self.result == 1


def _busy(sentence: str) -> Rejection:
    """Transient, by the provider, presentation related: a local limit is exceeded."""
    return Rejection(result=2, source=3, reason=2, sentence=sentence)


_CALLING_NOT_RECOGNISED = 3
_CALLED_NOT_RECOGNISED = 7
_FULL = Rejection(
    result=2,  # transient
    source=3,  # the provider, presentation related
    reason=1,  # temporary congestion
    sentence="the archive's disk is full: less is free than is held in reserve (min_free_bytes)",
)


class Admission:
    """Admits or rejects, by ``peers.toml`` and the room that is left.

    One peer has not all the associations to itself, so that a flood of one does not shut out the scanner.
    """

    def __init__(self, configuration: Configuration, archive: Archive) -> None:
        self._configuration = configuration
        self._archive = archive

    def admit(
        self, calling: str, called: str, host: str, proposed: Sequence[str], open_by: Mapping[str, int]
    ) -> PeerConfig | Rejection:
        """Return the peer that calls, or why it is rejected.

        ``proposed``: its abstract syntaxes; ``open_by``: how many associations each AE title has open.
        Raises StorageError.
        """
        if called != self._configuration.node.ae_title:
            return Rejection(
                reason=_CALLED_NOT_RECOGNISED, sentence=f"called AE title {called!r} is not ours"
            )
        peer = self._peer(calling)
        if peer is None:
            return Rejection(
                reason=_CALLING_NOT_RECOGNISED, sentence=f"calling AE title {calling!r} is not a peer's"
            )
        if peer.hosts and host not in peer.hosts:
            sentence = f"peer {peer.name} may not call from this address"
            return Rejection(reason=_CALLING_NOT_RECOGNISED, sentence=sentence)
        node = self._configuration.node
        if sum(open_by.values()) >= node.max_associations:
            return _busy(f"{node.max_associations} associations are open (max_associations)")
        if open_by.get(calling, 0) >= node.max_associations_per_peer:
            most = node.max_associations_per_peer
            return _busy(f"peer {peer.name} has {most} associations open (max_associations_per_peer)")
        return _FULL if _only_stores(proposed) and self._archive.is_full else peer

    def _peer(self, calling: str) -> PeerConfig | None:
        known = (peer for peer in self._configuration.peers if peer.ae_title == calling)
        return self._configuration.caller(calling) or next(known, None)


def _only_stores(proposed: Sequence[str]) -> bool:
    """Whether nothing is proposed but storage; who asks or reports is served where nothing more fits."""
    wanted = {uid for uid in proposed if uid != Verification}
    return bool(wanted) and all(issubclass(uid_to_service_class(uid), StorageServiceClass) for uid in wanted)
