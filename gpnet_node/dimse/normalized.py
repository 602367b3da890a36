"""What the handlers of DIMSE-N requests (PS3.7 10) share: reading what came along, and answering."""

from collections.abc import Sequence
from io import BytesIO

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dsutils import decode

from gpnet_node.errors import QueryError
from gpnet_node.intake.spool import Identifier
from gpnet_node.store.versions import UNREADABLE

# PS3.7 C
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
RESOURCE_LIMITATION = 0x0213

OUR_TROUBLE = "out of resources; the node's log says why"
_COMMENT_CHARACTERS = 64  # Error Comment is an LO (PS3.7 C.1)

Answer = tuple[Dataset, Dataset | None]  # status, and what comes along


def read(sent: object, event: evt.Event) -> Dataset:
    """Decode what came along with a request. Raises QueryError: nothing, too much, or no data set."""
    if not isinstance(sent, BytesIO) or (isinstance(sent, Identifier) and sent.too_long):
        raise QueryError("the request has no data set, or one that is too long")
    syntax = UID(event.context.transfer_syntax)
    try:
        found: Dataset = decode(sent, syntax.is_implicit_VR, syntax.is_little_endian)
        list(found.iterall())  # elements are read when they are asked for
    except (*UNREADABLE, OSError) as exc:  # a sequence that ends too early
        raise QueryError("the request's data set cannot be parsed") from exc
    return found


def items(data_set: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence, none where it is not there. Raises QueryError: it is no sequence."""
    value = data_set.get(keyword)
    if value is None:
        return ()
    if not isinstance(value, Items):
        raise QueryError(f"{keyword} is not a sequence")
    return value


def answer(status: int, comment: str = "") -> Answer:
    """Answer with a status alone."""
    told = Dataset()
    told.Status = status
    if comment:
        told.ErrorComment = comment[:_COMMENT_CHARACTERS]
    return told, None
