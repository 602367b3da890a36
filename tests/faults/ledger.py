"""What the sending side knows: which images were acknowledged, whatever the node says of itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association

from gpnet_node.store.archive import Archive
from tests.peers import data_set_bytes

TOLD = "told"  # the property of a test that the end of the run tells
_AGAIN_SECONDS = 0.2


class Scanner:
    """Sends a series as scanners do: on one association, again from the start of the rest where it breaks."""

    def __init__(self, port: int, *, acknowledged: Callable[[str], None] = lambda uid: None) -> None:
        self._port = port
        self._tell = acknowledged
        self.acknowledged: dict[str, bytes] = {}  # the data set as sent, by SOP Instance UID

    def send(
        self, paths: Sequence[Path], *, seconds: float = 60, between: Callable[[int], None] = lambda n: None
    ) -> None:
        """Send until each is acknowledged; ``between`` is told before each try how many are."""
        waiting, deadline = list(paths), time.monotonic() + seconds
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} images were never acknowledged"
            between(len(self.acknowledged))
            association = self._associate(waiting[0])
            while waiting and association.is_established:
                between(len(self.acknowledged))
                if self._store(association, waiting[0]):
                    waiting.pop(0)
            if association.is_established:
                association.release()
            elif waiting:
                time.sleep(_AGAIN_SECONDS)

    def _associate(self, path: Path) -> Association:
        _config.STORE_SEND_CHUNKED_DATASET = True
        meta = dcmread(path, stop_before_pixels=True).file_meta
        ae = AE(ae_title="SCANNER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        ae.add_requested_context(UID(meta.MediaStorageSOPClassUID), [UID(meta.TransferSyntaxUID)])
        return ae.associate("127.0.0.1", self._port, ae_title="GPNET")

    def _store(self, association: Association, path: Path) -> bool:
        try:
            answer = association.send_c_store(path)
        except RuntimeError:  # it broke before the request
            return False
        if "Status" not in answer or answer.Status != 0x0000:
            return False
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        self._tell(uid)
        self.acknowledged[uid] = data_set_bytes(path)
        return True


def lost(acknowledged: Mapping[str, bytes], archive: Archive) -> list[str]:
    """Return what was acknowledged and is not in the archive, byte for byte: any version of it."""
    held = {(uid, data_set_bytes(archive.root / path)) for uid, _, path in archive.instances()}
    return [uid for uid, sent in acknowledged.items() if (uid, sent) not in held]
