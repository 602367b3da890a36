"""Everything that this program raises on purpose, by who must act.

::

    GpnetError
    ├── ConfigurationError        the operator: a file in ae_config/ or a model card is wrong
    │   └── WeightsMismatchError  the operator: weights.safetensors is not the file the card names
    ├── InputError                the sender: what arrived cannot be used
    │   ├── UnreadableInstanceError   one SOP instance cannot be parsed or decoded
    │   ├── MismatchedInstanceError   one SOP instance is not what the request says
    │   ├── NotAVolumeError           the series is not one whole volume
    │   │   └── MissingSlicesError    ... because positions are missing
    │   ├── NotEligibleError          the gate says that it is not meant for GP-net (a normal end)
    │   ├── NoPallidumError           the localiser finds no globus pallidus inside the volume
    │   └── QueryError                what is asked cannot be understood
    ├── PeerError                 the network or the peer
    │   ├── TransientPeerError        try again later
    │   └── PermanentPeerError        the peer will never take this
    ├── StorageError              the operator: disk or database does not do its work
    │   ├── DamagedDatabaseError  ... but a start of the whole node mends this
    │   └── StaleJobError             the job has moved on; what was computed for it is dropped
    └── SelfCheckError            us: an object disagrees with the label map; nothing leaves
"""

from collections.abc import Sequence


class GpnetError(Exception):
    """Base of all errors raised on purpose; its text is a sentence for the person who must act."""


class ConfigurationError(GpnetError):
    """A configuration file, key or value is wrong; the text names file, key and line."""


class WeightsMismatchError(ConfigurationError):
    """The SHA-256 of a weights file is not the one that its card states."""


class InputError(GpnetError):
    """What the sender gave cannot be used; the text names UID and number."""


class UnreadableInstanceError(InputError):
    """One SOP instance cannot be parsed, or its pixels cannot be decoded."""


class MismatchedInstanceError(InputError):
    """One SOP instance is not what was said of it: another UID or class, another study, no pixels."""


class NotAVolumeError(InputError):
    """The series does not make one whole volume; the text names UID and number."""


class MissingSlicesError(NotAVolumeError):
    """Positions are missing between the first and the last slice.

    ``positions_mm``: the missing positions, projected on the slice normal, in mm.
    """

    def __init__(self, message: str, *, positions_mm: Sequence[float]) -> None:
        super().__init__(message)
        self.positions_mm = tuple(positions_mm)


class NotEligibleError(InputError):
    """The gate finds that the series is not meant for GP-net; ``reasons`` holds one sentence each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


class NoPallidumError(InputError):
    """No globus pallidus was found inside the volume, on one side at least."""


class QueryError(InputError):
    """A query or retrieval cannot be understood; the text names the attribute and never quotes its value."""


class PeerError(GpnetError):
    """A peer did not do what was asked; the text names the peer."""


class TransientPeerError(PeerError):
    """The peer may take it later: no connection, rejection, time-out, abort, status A7xx."""


class PermanentPeerError(PeerError):
    """The peer will not take it: refused class, status A9xx, Cxxx, 01xx."""


class StorageError(GpnetError):
    """Archive or database failed; nothing was acknowledged."""


class DamagedDatabaseError(StorageError):
    """The database is damaged while other roles may be using it."""


class StaleJobError(StorageError):
    """A job moved while it was worked on; the work is dropped, not recorded."""


class SelfCheckError(GpnetError):
    """A written object, decoded again by an independent path, disagrees with the label map."""
