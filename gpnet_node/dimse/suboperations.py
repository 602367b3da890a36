"""C-STORE sub-operations of a C-MOVE or C-GET: one instance at a time, in a syntax that the peer takes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from gpnet_node.config import NodeConfig, PeerConfig
from gpnet_node.dimse.contexts import DECODED_SYNTAXES
from gpnet_node.dimse.sender import associate
from gpnet_node.errors import PeerError, UnreadableInstanceError
from gpnet_node.imaging.decoding import Codecs
from gpnet_node.intake.conversion import converted
from gpnet_node.log import get_logger
from gpnet_node.store.catalogue import Held
from gpnet_node.store.versions import data_set_start

_MOST_CONTEXTS = 128  # of one association (PS3.8 9.3.2.2)
_SUCCESS = 0x0000

log = get_logger(__name__)


class Result(Enum):
    """What became of one sub-operation."""

    COMPLETED = "completed"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Originator:
    """Who asked for a C-MOVE, as each of its C-STORE requests says (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


@dataclass(kw_only=True, eq=False)
class Storing:
    """Stores instances of the archive on an association, one after the other.

    ``codecs`` decode what is stored compressed; ``message_id`` is counted on, and wraps.
    """

    association: Association
    root: Path
    node: NodeConfig
    codecs: Codecs
    originator: Originator | None = None
    message_id: int = field(default=0)

    def store(self, held: Held) -> Result:
        """Send one instance and judge the answer. What cannot be sent fails alone."""
        syntax = _accepted_syntax(self.association, held)
        if syntax is None or self.association._sent_abort:
            return Result.FAILED
        path = self.root / held.path
        try:
            _require_whole(path, held)
            content = path if syntax == held.transfer_syntax_uid else self._converted(path, syntax)
            return _judged(self._sent(content))
        except UnreadableInstanceError as exc:
            log.warning("an instance cannot be sent", why=str(exc), instance=held.sop_instance_uid)
        except (AttributeError, RuntimeError, ValueError):  # pynetdicom: no association, or no DICOM file
            log.warning("an instance cannot be sent", instance=held.sop_instance_uid)
        except OSError as exc:  # of the file; half of it may have been sent
            log.error("an instance cannot be sent", reason=exc.strerror, instance=held.sop_instance_uid)
            self.association.abort(block=False)
        return Result.FAILED

    def _converted(self, path: Path, syntax: UID) -> Dataset:
        return converted(path, to=syntax, codecs=self.codecs, max_bytes=self.node.max_instance_bytes)

    def _sent(self, content: Path | Dataset) -> Dataset:
        self.message_id = self.message_id % 65535 + 1
        asked = self.originator
        answer: Dataset = self.association.send_c_store(
            content,
            msg_id=self.message_id,
            originator_aet=asked.ae_title if asked else None,
            originator_id=asked.message_id if asked else None,
        )
        return answer


def _require_whole(path: Path, held: Held) -> None:
    """Raise UnreadableInstanceError unless the file still holds as much as was indexed."""
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size - data_set_start(file)
    except OSError as exc:
        raise UnreadableInstanceError(f"{held.path} cannot be read: {exc.strerror}") from exc
    if size_bytes != held.size_bytes:
        raise UnreadableInstanceError(f"{held.path} has {size_bytes} bytes instead of {held.size_bytes}")


def _judged(answer: Dataset) -> Result:
    status = int(answer.Status) if "Status" in answer else None
    if status == _SUCCESS:
        return Result.COMPLETED
    return Result.WARNING if status is not None and status & 0xF000 == 0xB000 else Result.FAILED


def _accepted_syntax(association: Association, held: Held) -> UID | None:
    """Return the syntax to send an instance in: as stored, else decoded; None: the peer takes neither."""
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == held.sop_class_uid and context.as_scu
    }
    order = (held.transfer_syntax_uid, *DECODED_SYNTAXES)
    return next((UID(syntax) for syntax in order if syntax in accepted), None)


def send_all(
    peer: PeerConfig,
    items: Sequence[Held],
    *,
    root: Path,
    node: NodeConfig,
    codecs: Codecs,
    asked: Originator,
) -> Iterator[tuple[Held, Result]]:
    """Send instances to a peer, on as many associations as their contexts need, one after the other.

    Once the peer cannot be reached, what is left fails. Closing the iterator releases the association.
    """
    reachable = True
    for contexts, batch in batches(items):
        association = None
        if reachable:
            try:
                association = associate(peer, contexts, node)
            except PeerError as exc:
                reachable = False
                log.warning("a destination cannot be reached", reason=str(exc), peer=peer.name)
        if association is None:
            yield from ((held, Result.FAILED) for held in batch)
            continue
        storing = Storing(association=association, root=root, node=node, codecs=codecs, originator=asked)
        try:
            for held in batch:
                yield held, storing.store(held)
        finally:
            if association.is_established:
                with suppress(RuntimeError):  # the peer ended it meanwhile
                    association.release()


def batches(items: Sequence[Held]) -> Iterator[tuple[list[PresentationContext], list[Held]]]:
    """Divide instances so that those of one association need no more contexts than it can propose.

    Each class gets a context for each syntax that it is stored in, so that each acceptance speaks for one
    encoding, and one for what it can be decoded to.
    """
    pairs: dict[tuple[str, str], None] = {}
    batch: list[Held] = []
    for held in items:
        wanted = {(held.sop_class_uid, held.transfer_syntax_uid): None, (held.sop_class_uid, ""): None}
        if len(pairs | wanted) > _MOST_CONTEXTS:
            yield _contexts(pairs), batch
            pairs, batch = {}, []
        pairs |= wanted
        batch.append(held)
    if batch:
        yield _contexts(pairs), batch


def _contexts(pairs: dict[tuple[str, str], None]) -> list[PresentationContext]:
    return [
        build_context(UID(sop_class), [UID(syntax)] if syntax else list(DECODED_SYNTAXES))
        for sop_class, syntax in pairs
    ]
