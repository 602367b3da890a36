"""How a process of the node lives and ends: with its parent, and with a line that says why."""

import ctypes
import os
import signal
import sys
import threading
from types import TracebackType

from gpnet_node.errors import ConfigurationError, DamagedDatabaseError, GpnetError
from gpnet_node.log import get_logger

EXIT_DAMAGED = 75  # EX_TEMPFAIL: a start of the whole node mends it
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: starting again would not help
LOOK_SECONDS = 0.5  # from one look about itself to the next
SHARE_OF_DRAIN = 0.7  # what open associations get of the drain time; the rest is for the index
_PR_SET_PDEATHSIG = 1  # prctl(2)

log = get_logger(__name__)


def die_with(parent: int) -> None:
    """Be killed when the parent dies: nothing is lost by that, and no orphan holds port and locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


class LastWords:
    """Turns the error that ends a process into a log line and an exit status.

    A traceback on standard error would quote values of data sets; of a bug the line has kind and place.
    """

    def __init__(self, role: str) -> None:
        self._role = role

    def __enter__(self) -> None:
        """Hear of threads, too."""
        threading.excepthook = lambda args: log.error("a thread died of a bug", exc_info=args.exc_value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        """Say why, and leave."""
        if error is None or isinstance(error, SystemExit):
            return
        if isinstance(error, GpnetError):
            log.error("a role ends", role=self._role, reason=str(error))
        else:
            log.error("a role dies of a bug", role=self._role, exc_info=error)
        sys.exit(_exit_status(error))


def _exit_status(error: BaseException) -> int:
    if isinstance(error, DamagedDatabaseError):
        return EXIT_DAMAGED
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else 1
