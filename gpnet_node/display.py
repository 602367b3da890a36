"""Tables for people and JSON for programs, on standard output."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpnet_node.dimse.sender import Outcome, Verdict
from gpnet_node.offline import Written
from gpnet_node.overview import Overview, waits_for
from gpnet_node.results.measure import Measurement
from gpnet_node.store.outbox import Debt
from gpnet_node.store.states import JobState, SeriesState

if TYPE_CHECKING:
    from gpnet_node.model.evaluation.bars import Bar

_STYLES: Mapping[str, str] = {
    **dict.fromkeys((JobState.DELIVERED, JobState.CONFIRMED, SeriesState.COMPLETE, "paid"), "green"),
    **dict.fromkeys((JobState.FAILED, JobState.PARKED, SeriesState.INCOMPLETE), "red"),
    **dict.fromkeys((JobState.NEEDS_REVIEW, JobState.RUNNING, "owed"), "yellow"),
}
_VERDICT_STYLES = {
    Verdict.DELIVERED: "green",
    Verdict.TRANSIENT: "yellow",
    Verdict.NOT_TAKEN: "yellow",
    Verdict.PERMANENT: "red",
}


def print_json(value: object) -> None:
    """Write a value to standard output, as JSON that a program can read."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _state(state: str) -> Text:
    return Text(str(state), style=_STYLES.get(state, ""))


# -- results -------------------------------------------------------------------------------------------------


def measurements(measured: Sequence[Measurement]) -> RenderableType:
    """One row per structure."""
    columns = ("structure", "volume mm³", "usual mm³", "centre L P S mm", "signal", "sd", "asymmetry %")
    table = _table("Research use only: not for clinical decisions", *columns, numbers=columns[1:])
    for it in measured:
        low, high = it.structure.volume_range_mm3
        centre = " ".join(f"{x:.1f}" for x in it.centroid_mm) if it.centroid_mm else "-"
        style = "" if it.within_conventional_range else "yellow"
        table.add_row(
            it.structure.name,
            Text(f"{it.volume_mm3:.0f}", style=style),
            f"{low:.0f}-{high:.0f}",
            centre,
            _number(it.signal_mean),
            _number(it.signal_sd),
            _number(it.asymmetry_percent),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def written_as_json(written: Written) -> dict[str, Any]:
    """What ``segment`` made."""
    return {
        "files": [str(path) for path in written.paths],
        "model": {"name": written.card.name, "version": written.card.version},
        "notes": list(written.notes),
        "needs_review": list(written.reasons),
        "measurements": [
            {
                "structure": it.structure.name,
                "volume_mm3": it.volume_mm3,
                "within_conventional_range": it.within_conventional_range,
                "centroid_lps_mm": it.centroid_mm,
                "signal_mean": it.signal_mean,
                "signal_sd": it.signal_sd,
                "asymmetry_percent": it.asymmetry_percent,
            }
            for it in written.measurements
        ],
    }


def bars(measured: "Sequence[Bar]") -> RenderableType:
    """What ``evaluate`` measured against what was asked for."""
    table = _table(
        "On drawn images of people whose maps were not trained on", "what", "must", "aim", "measured", ""
    )
    verdicts = {True: Text("met", style="green"), False: Text("NOT MET", style="red"), None: Text("-")}
    for it in measured:
        verdict = Text("aim met", style="green") if it.meets_aim else verdicts[it.meets_must]
        table.add_row(it.what, it.must, it.aim, it.measured, verdict)
    return table


# -- sending -------------------------------------------------------------------------------------------------


def outcomes(sent: Sequence[Outcome]) -> RenderableType:
    """What became of each file."""
    table = _table("", "file", "verdict", "answer")
    for it in sent:
        verdict = Text(it.verdict.value, style=_VERDICT_STYLES[it.verdict])
        table.add_row(Text(str(it.path)), verdict, Text(it.text))
    return table


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """One file's outcome."""
    return {
        "path": str(outcome.path),
        "sop_instance_uid": outcome.sop_instance_uid,
        "verdict": outcome.verdict.value,
        "status": None if outcome.status is None else f"0x{outcome.status:04X}",
        "text": outcome.text,
        "warning": outcome.warning,
    }


# -- the operator --------------------------------------------------------------------------------------------


def overview(seen: Overview) -> RenderableType:
    """Series, jobs, outbox, and the history of what was asked for."""
    series = _table("Series", "uid", "state", "images", "received", "waits for, or why", numbers=("images",))
    for it in seen.series:
        why = waits_for(seen, it) or it.reason
        received = f"{it.last_received_at.astimezone():%Y-%m-%d %H:%M:%S}"
        series.add_row(it.uid, _state(it.state), str(seen.images[it.uid]), received, Text(why))
    jobs = _table("Jobs", "uid", "state", "attempts", "series", "reason", numbers=("attempts",))
    for job in seen.jobs:
        jobs.add_row(job.uid, _state(job.state), str(job.attempts), job.series_uid, Text(job.reason))
    debts = _table("Outbox", "job", "object", "peer", "state", "tries", "next", "last", numbers=("tries",))
    for debt, count in _alike(seen.debts):
        due = f"{debt.next_attempt_at.astimezone():%H:%M:%S}" if debt.state == "owed" else "-"
        debts.add_row(
            debt.job_uid,
            debt.name if count == 1 else f"{debt.kind} x {count}",
            debt.peer,
            _state(debt.state),
            str(debt.attempts),
            due,
            Text(debt.comment),
        )
    history = _table("History", "at", "what happened")
    for event in seen.history:
        history.add_row(f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}", Text(event.sentence))
    free = Text(f"{seen.free_bytes / 1e9:.1f} GB free for the archive", style="dim")
    if seen.retention:
        free.append(f"; {seen.retention}")
    return Group(series, jobs, debts, *([history] if seen.history else []), free)


def _alike(debts: Sequence[Debt]) -> Iterator[tuple[Debt, int]]:
    """Objects of one kind that fare alike at one peer, told once, with their number: a series has many."""
    alike: dict[tuple[object, ...], list[Debt]] = {}
    for debt in debts:
        key = (debt.job_uid, debt.kind, debt.peer, debt.state, debt.attempts, debt.comment)
        alike.setdefault(key, []).append(debt)
    return ((group[0], len(group)) for group in alike.values())


def checked(found: Mapping[str, Any]) -> RenderableType:
    """What ``check`` found, faults in red."""
    about = _table("Node", "", "")
    for name in ("ae_title", "listens", "web", "archive", "database", "journal_mode", "journal_reason"):
        about.add_row(name.replace("_", " "), Text(str(found[name])))
    peers = _table("Peers", "name", "AE title", "address", "rights", "C-ECHO")
    for peer in found["peers"]:
        answer = peer.get("fault") or ("answers" if peer.get("echo") else "-")
        style = "red" if peer.get("fault") else ""
        rights = ", ".join(peer["rights"]) or "C-ECHO only"
        address = peer["address"] or "-"
        peers.add_row(peer["name"], peer["ae_title"], address, rights, Text(answer, style=style))
    routes = _table("Routes", "name", "model", "destinations")
    for route in found["routes"]:
        destinations = ", ".join(route["destinations"]) or "none: results stay here"
        routes.add_row(route["name"], route["model"], destinations)
    models = _table("Models", "name", "version", "SHA-256")
    for model in found["models"]:
        fault = model.get("fault")
        shown = Text(fault, style="red") if fault else Text(model["sha256"])
        models.add_row(model["name"], model.get("version", "-"), shown)
    codecs = _table("Transfer syntaxes", "name", "decoded")
    for name, decoded in found["codecs"].items():
        codecs.add_row(name, Text("yes") if decoded else Text("no: a codec is missing", style="red"))
    return Group(about, peers, routes, models, codecs)
