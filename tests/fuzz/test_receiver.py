"""A running receiver takes whatever it is sent: it answers, aborts or closes, and nothing of it stays."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.parts import Role
from tests.fuzz.inputs import Input, Layer, framed, inputs
from tests.fuzz.lane import HangError, Lane
from tests.fuzz.messages import MESSAGES, get, report, store
from tests.fuzz.watch import Watch
from tests.nodes import configuration_of, running_node
from tests.peers import free_port

SEED = int(os.environ.get("GPNET_FUZZ_SEED", "1"))
FIRST_BATCH = int(os.environ.get("GPNET_FUZZ_BATCH", "0"))
FEW, MANY = 2_000, int(os.environ.get("GPNET_FUZZ_INPUTS", "200000"))
LANES, BATCH = 4, 100
BATCHES_A_NODE = 20  # then another begins, so that the archive stays small
PATIENT_EVERY = 10  # batches, in which the node's own timeouts end what waits for more
SCANNER = {
    "name": "scanner",
    "ae_title": "SCANNER",
    "host": "127.0.0.1",
    "may_store": True,
    "may_query": True,
    "may_retrieve": True,
    "may_report": True,
    "may_commit": True,
    "accept_other_classes": True,
    "confirm": "commitment",
}


def configuration(folder: Path) -> Configuration:
    """A node that gives the fuzzer every right, and is impatient."""
    given = configuration_of(
        folder,
        acse_timeout_seconds=5,
        dimse_timeout_seconds=5,
        network_timeout_seconds=5,
        max_instance_bytes=8 << 20,
        max_associations=256,
        warn_free_bytes=0,
        min_free_bytes=0,
    )
    closed = free_port()
    pacs = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=closed)
    scanner = PeerConfig.model_validate({**SCANNER, "port": closed})
    return given.model_copy(update={"peers": (scanner, pacs)})


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of a batch."""

    counts: Counter[str]
    kept: dict[str, bytes]
    faults: list[str]


def play(port: int, batch: Sequence[Input], *, seed: str, patient: bool) -> Played:
    """Send a batch on several connections at once."""
    counts: Counter[str] = Counter()
    kept: dict[str, bytes] = {}
    faults: list[str] = []
    at_work: dict[int, Input] = {}

    def work(number: int) -> None:
        lane = Lane(port, Random(f"{seed}/{number}"), patient=patient)
        try:
            for it in batch[number::LANES]:
                at_work[number] = it
                outcome = lane.play(it)
                counts[f"{it.layer}: {outcome.answer}"] += 1
                kept.update(outcome.kept)
            lane.close()
            lane.wait()
        except HangError as exc:
            faults.append(f"{exc}; at work was {described(at_work[number])}")
            lane.close()

    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(work, range(LANES)))
    return Played(counts=counts, kept=kept, faults=faults)


def described(it: Input) -> str:
    return f"{it.layer} of {it.kind}, {len(it.sent)} bytes: {it.sent.hex()}"


def warm_up() -> list[Input]:
    """Inputs of all kinds, valid and not, by which a node loads and opens what it keeps."""
    rng = Random(0)
    made = [make(rng) for make in MESSAGES for _ in range(2 * LANES)]
    valid = [Input(layer=Layer.NOTHING, kind=it.kind, sent=framed(it)) for it in made]
    return [*valid, *inputs(rng, BATCH)]


@contextmanager
def watched(folder: Path, said: Callable[[], str]) -> Iterator[tuple[int, Watch]]:
    """A node that has warmed up."""
    with running_node(configuration(folder), Role.RECEIVER) as node:
        watch = Watch(node, said)
        played = play(node.port, warm_up(), seed="warm-up", patient=False)
        assert not played.faults
        watch.warmed_up()
        yield node.port, watch


def fuzz(count: int, folder: Path, said: Callable[[], str], tell: Callable[[str], None]) -> Counter[str]:
    """Play ``count`` inputs, in batches; the first batch after which anything is wrong fails the test."""
    counts: Counter[str] = Counter()
    last = FIRST_BATCH + -(-count // BATCH)
    for first in range(FIRST_BATCH, last, BATCHES_A_NODE):
        with watched(folder / str(first), said) as (port, watch):
            for number in range(first, min(first + BATCHES_A_NODE, last)):
                seed = f"{SEED}/{number}"
                batch = list(inputs(Random(seed), BATCH))
                played = play(port, batch, seed=seed, patient=number % PATIENT_EVERY == 0)
                if faults := played.faults + watch.faults(played.kept):
                    pytest.fail(complaint(number, faults, blamed(port, watch, batch, seed)), pytrace=False)
                counts += played.counts
                tell(f"batch {number}: {counts.total()} inputs; {watch.summary()}")
    return counts


def blamed(port: int, watch: Watch, batch: Sequence[Input], seed: str) -> str:
    """Play a batch's inputs one by one, until one is found that does it alone."""
    for it in batch:
        played = play(port, [it], seed=seed, patient=False)
        if faults := played.faults + watch.faults(played.kept):
            return f"alone it is {described(it)}: {faults[0]}"
    return "none of its inputs does it alone"


def complaint(number: int, faults: Sequence[str], who: str) -> str:
    again = f"GPNET_FUZZ_SEED={SEED} GPNET_FUZZ_BATCH={number} GPNET_FUZZ_INPUTS={BATCH} make fuzz"
    return "\n".join([f"batch {number} ({again})", *faults, who])


def table(counts: Counter[str]) -> str:
    return "\n".join(f"{number:8d}  {what}" for what, number in sorted(counts.items()))


def past_association(counts: Counter[str]) -> int:
    return sum(number for what, number in counts.items() if not what.startswith(Layer.ASSOCIATION))


@pytest.mark.timeout(900)  # a minute on a core of its own
def test_a_receiver_answers_aborts_or_closes_whatever_it_is_sent_and_keeps_nothing_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = fuzz(FEW, tmp_path, lambda: capfd.readouterr().err, lambda line: None)

    assert counts.total() >= FEW
    assert past_association(counts) * 2 > counts.total(), table(counts)
    assert counts[f"{Layer.DATA_SET}: 0x0000"] > 0, table(counts)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_a_receiver_takes_as_many_inputs_as_are_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def tell(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    counts = fuzz(MANY, tmp_path, lambda: capfd.readouterr().err, tell)

    tell(f"seed {SEED}: {past_association(counts)} of {counts.total()} went to an association")
    tell(table(counts))
    assert past_association(counts) * 2 > counts.total()


def test_a_retrieval_right_behind_a_report_is_answered_each_time(tmp_path: Path) -> None:
    rng = Random(SEED)
    with running_node(configuration(tmp_path), Role.RECEIVER) as node:
        stored = [store(rng) for _ in range(40)]
        behind = [it for _ in range(30) for it in (report(rng), get(rng))]
        batch = [
            Input(layer=Layer.NOTHING, kind=it.kind, sent=framed(it))
            for it in (*stored, *behind)
            for _ in range(LANES)
        ]
        played = play(node.port, batch, seed="behind a report", patient=False)

    assert played.faults == []
