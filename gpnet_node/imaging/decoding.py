"""From stored bits to numbers: native pixel data read straight, compressed by a codec (PS3.5 8)."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from gpnet_node.codecs import decode, only_gdcm_decodes
from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.imaging.elements import PARSE_FAILURES, file_failure
from gpnet_node.imaging.gdcm_process import answer, ask
from gpnet_node.imaging.pixels import PixelLayout

# Codecs report their own troubles as RuntimeError (pydicom collects them so), memory, or parse failures.
DECODE_FAILURES = (*PARSE_FAILURES, RuntimeError)


class Codecs:
    """What decodes compressed frames; as a context it ends what it started.

    Only GDCM decodes JPEG, lossless JPEG among it, and a damaged stream can end the process it runs in.
    So GDCM gets a process of its own, started when first needed and kept for the files that follow; one
    that takes longer than ``answer_seconds`` for a frame is ended.
    """

    def __init__(self, *, answer_seconds: float = 120.0) -> None:
        self.answer_seconds = answer_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def frames(self, path: Path, layouts: Sequence[PixelLayout]) -> Iterator[NDArray[np.integer]]:
        """Decode frames of one file, one at a time. Raises one of DECODE_FAILURES or OSError."""
        return self.decoded(path, layouts[0].transfer_syntax, [layout.frame_index for layout in layouts])

    def decoded(self, path: Path, syntax: UID, indices: Sequence[int]) -> Iterator[NDArray[np.integer]]:
        """Decode frames, counted from 0, of a file of any kind. Raises one of DECODE_FAILURES or OSError."""
        return (self._frames_apart if only_gdcm_decodes(syntax) else decode)(path, syntax, indices)

    def _frames_apart(self, path: Path, syntax: UID, indices: Sequence[int]) -> Iterator[NDArray[np.integer]]:
        if self._child is None:
            command = [sys.executable, "-m", "gpnet_node.imaging.gdcm_process"]
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing)
        whole = False
        try:
            ask(self._child, path, syntax, indices)
            for number in range(1, len(indices) + 1):
                pixels = answer(self._child, seconds=self.answer_seconds)
                whole = number == len(indices)  # who takes the last frame asks no further
                yield pixels
        except TimeoutError:
            raise
        except (*PARSE_FAILURES, RuntimeError) as exc:
            raise RuntimeError("GDCM could not decode the frame") from exc
        finally:
            if not whole:  # an answer may still lie in the pipe: the next file starts afresh
                self.__exit__()


def read_frames(
    path: Path, layouts: Sequence[PixelLayout], where: str, codecs: Codecs
) -> Iterator[NDArray[np.integer]]:
    """Stored values of some frames of one file, in the order asked for, one at a time, (rows, columns).

    Sign and unused bits are resolved (PS3.5 8.1.1). Raises UnreadableInstanceError where a codec fails.
    """
    if layouts[0].native:
        yield from _read_native(path, layouts, where)
        return
    frames: Iterator[NDArray[np.integer]] | None = None
    for layout in layouts:
        try:
            frames = frames or codecs.frames(path, layouts)
            pixels = next(frames)
        except TimeoutError as exc:
            seconds = f"{codecs.answer_seconds:g} s"
            raise UnreadableInstanceError(f"{where}: its pixels were not decoded within {seconds}") from exc
        except OSError as exc:
            raise file_failure(exc, where) from exc
        except (*DECODE_FAILURES, StopIteration) as exc:
            raise UnreadableInstanceError(
                f"{where}: pixels cannot be decoded from transfer syntax {layout.transfer_syntax} "
                f"({type(exc).__name__})"
            ) from exc
        if pixels.shape != (layout.rows, layout.columns):
            raise UnreadableInstanceError(
                f"{where}: decoded to {pixels.shape} pixels instead of {layout.rows} x {layout.columns}"
            )
        yield pixels


def _read_native(path: Path, layouts: Sequence[PixelLayout], where: str) -> Iterator[NDArray[np.integer]]:
    try:
        with path.open("rb") as file:
            for layout in layouts:
                file.seek((layout.offset or 0) + layout.frame_index * layout.frame_bytes)
                kind = ("<" if layout.little_endian else ">") + ("i" if layout.signed else "u")
                stored = np.fromfile(
                    file, f"{kind}{layout.bits_allocated // 8}", layout.rows * layout.columns
                )
                if stored.size != layout.rows * layout.columns:
                    raise UnreadableInstanceError(f"{where}: the file became shorter while it was read")
                yield _without_unused_bits(stored, layout).reshape(layout.rows, layout.columns)
    except OSError as exc:
        raise file_failure(exc, where) from exc


def _without_unused_bits(stored: NDArray[np.integer], layout: PixelLayout) -> NDArray[np.integer]:
    """Bits above the high bit may hold anything (old overlays); shifting there and back drops them."""
    above = layout.bits_allocated - 1 - layout.high_bit
    below = layout.bits_allocated - layout.bits_stored
    if below == 0:
        return stored
    return (stored << above) >> below  # the right shift of a signed type carries the sign
