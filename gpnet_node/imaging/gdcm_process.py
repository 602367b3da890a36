"""GDCM in a process of its own: a damaged JPEG stream can end it, and then ends nothing else.

Parent and child speak over the child's standard input and output: a line of JSON asks for frames of a
file; for each frame comes a line of JSON, either its form, and then its bytes follow, or an error.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from gpnet_node.codecs import decode
from gpnet_node.imaging.elements import PARSE_FAILURES


def ask(child: subprocess.Popen[bytes], path: Path, syntax: UID, indices: Sequence[int]) -> None:
    """Ask for frames (counted from 0). Raises OSError where the child has ended."""
    if child.stdin is None:
        raise EOFError("the child has no standard input")
    request = {"path": str(path.absolute()), "syntax": str(syntax), "indices": list(indices)}
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[bytes], *, seconds: float) -> NDArray[Any]:
    """Take the next frame; a child that takes longer than ``seconds`` for it is killed.

    Raises TimeoutError for that, RuntimeError with the child's error, EOFError where the child has ended.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    alarm = threading.Timer(seconds, end)
    alarm.start()
    try:
        return _read_answer(child)
    except (EOFError, ValueError) as exc:
        if late.is_set():
            raise TimeoutError(f"not decoded within {seconds:g} s") from exc
        raise
    finally:
        alarm.cancel()


def _read_answer(child: subprocess.Popen[bytes]) -> NDArray[Any]:
    line = child.stdout.readline() if child.stdout else b""
    if child.stdout is None or not line:
        raise EOFError("the child has ended")
    form = json.loads(line)
    if "error" in form:
        raise RuntimeError(form["error"])
    pixels = np.frombuffer(child.stdout.read(form["bytes"]), form["type"])
    return pixels.reshape(form["shape"])


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until ``requests`` ends; after an error the rest of that request is dropped."""
    for line in requests:
        request = json.loads(line)
        try:
            for pixels in decode(Path(request["path"]), UID(request["syntax"]), request["indices"]):
                form = {"shape": pixels.shape, "type": pixels.dtype.str, "bytes": pixels.nbytes}
                answers.write(json.dumps(form).encode() + b"\n" + pixels.tobytes())
        except (*PARSE_FAILURES, RuntimeError) as exc:
            answers.write(json.dumps({"error": type(exc).__name__}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
