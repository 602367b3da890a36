"""Files of any bytes: what reads them refuses in words of its own, quickly, and never names the patient."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from pydicom.uid import UID

from gpnet_node.config import RouteConfig
from gpnet_node.errors import GpnetError
from gpnet_node.imaging import gate, series
from gpnet_node.imaging.volume import assemble
from gpnet_node.store.header import header_of
from gpnet_node.store.instance import read_received
from gpnet_node.web.part10 import announced, head_length
from tests.fuzz.dataset import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    MARK,
    MR_IMAGE,
    Element,
    encoded,
    mr_image,
    texts,
)
from tests.fuzz.mutation import bombed, bytes_changed, deep, elements_changed

SEED = int(os.environ.get("GPNET_FUZZ_SEED", "1"))
FEW, MANY = 400, int(os.environ.get("GPNET_FUZZ_INPUTS", "200000")) // 10
SLICES = 3
LIMIT_SECONDS = 20.0
LARGEST_BYTES = 8 << 20
ROUTES = (RouteConfig(name="gpnet", model="gpnet-1"),)

pytestmark = pytest.mark.filterwarnings("ignore")

Read = Callable[[Sequence[Path]], object]


@pytest.fixture(autouse=True)
def without_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library warns of nearly every input."""
    monkeypatch.setattr(logging.getLogger("pydicom"), "disabled", True)


def part_10(elements: Sequence[Element], syntax: str, uid: str, rng: Random | None = None) -> bytes:
    """A file of PS3.10; with ``rng`` its data set, its file meta information or its bytes are wrong."""
    meta = texts(x00020002UI=MR_IMAGE, x00020003UI=uid, x00020010UI=syntax)
    if rng is None:
        return _file(meta, encoded(elements, syntax))
    for _ in range(rng.choice([1, 1, 2, 3, 4])):
        elements = elements_changed(elements, rng)
    if elements and syntax == DEFLATED and rng.random() < 0.1:
        elements = bombed(elements, rng)
    if rng.random() < 0.1:
        meta = elements_changed(meta, rng)
    content = encoded(elements, syntax)
    if rng.random() < 0.03:
        content = deep(rng.choice([100, 1000, 5000]), closed=rng.random() < 0.5) + content
    whole = _file(meta, content)
    return bytes_changed(whole, rng) if rng.random() < 0.3 else whole


def _file(meta: Sequence[Element], content: bytes) -> bytes:
    head = encoded(meta, EXPLICIT)
    length = Element(tag=0x00020000, vr="UL", value=len(head).to_bytes(4, "little"))
    return bytes(128) + b"DICM" + encoded([length], EXPLICIT) + head + content


def wrong_series(folder: Path, rng: Random) -> list[Path]:
    """Files of a series of which one is wrong."""
    syntax, wrong = rng.choice([EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]), rng.randrange(SLICES)
    paths = []
    for number in range(SLICES):
        uid = f"1.2.3.{number}"
        elements = mr_image(uid, study="1.1", series="1.2", transfer_syntax=syntax, sop_class=MR_IMAGE)
        (position,) = texts(x00200032DS=f"-10\\-10\\{2 * number}")
        elements = [position if it.tag == position.tag else it for it in elements]
        path = folder / f"{number}.dcm"
        path.write_bytes(part_10(elements, syntax, uid, rng if number == wrong else None))
        paths.append(path)
    return paths


def as_one_part(paths: Sequence[Path]) -> object:
    """Read each as a part of a STOW-RS request is."""
    found = []
    for path in paths:
        content = path.read_bytes()
        start = head_length(content)
        if start is None:
            continue
        said = announced(content[:start], sender="STOW-RS")
        received = read_received(
            BytesIO(content), start=start, transfer_syntax=UID(said.transfer_syntax), max_bytes=LARGEST_BYTES
        )
        found.append(header_of(received.header))
    return found


def as_a_volume(paths: Sequence[Path]) -> object:
    """Read them as ``gpnet-node segment`` and the worker do, with and without the gate."""
    stacks = series.split(series.read_headers(paths))
    gate.decide(stacks, ROUTES)
    chosen = series.choose(stacks)
    list(gate.notes_on(chosen))
    return assemble(chosen)


def how(read: Read, paths: Sequence[Path]) -> str:
    """Say what came of it; a reader that raises anything else than its own errors is at fault."""
    began = time.monotonic()
    refused = ""
    try:
        read(paths)
        answer = "read"
    except GpnetError as exc:
        answer, refused = type(exc).__name__, str(exc)
    assert MARK not in refused
    assert time.monotonic() - began < LIMIT_SECONDS
    return answer


def fuzz(count: int, folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number in range(count):
        rng = Random(f"{SEED}/files/{number}")
        paths = wrong_series(folder, rng)
        for read in (as_one_part, as_a_volume):
            try:
                counts[f"{read.__name__}: {how(read, paths)}"] += 1
            except Exception as exc:
                exc.add_note(f"seed {SEED}, series {number}, read {read.__name__}")
                for path in paths:
                    exc.add_note(path.read_bytes().hex())
                raise
    return counts


def test_a_file_of_any_bytes_is_read_or_refused_in_our_own_words(tmp_path: Path) -> None:
    counts = fuzz(FEW, tmp_path)

    assert counts["as_one_part: read"] > 0
    assert counts["as_a_volume: read"] > 0
    assert counts["as_one_part: UnreadableInstanceError"] > FEW / 20, counts


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_as_many_files_as_are_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    counts = fuzz(MANY, tmp_path)

    with capfd.disabled():
        print(f"\nseed {SEED}: {MANY} files")
        print("\n".join(f"{number:8d}  {what}" for what, number in sorted(counts.items())))
