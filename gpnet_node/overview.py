"""What the operator sees: the store as it stands, and what the configuration comes to. No patient data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from gpnet_node.completeness import Watcher
from gpnet_node.config import Configuration, PeerConfig
from gpnet_node.dimse.sender import echo as verify
from gpnet_node.errors import GpnetError, PeerError, StorageError
from gpnet_node.intake.keeping import TRANSFER_SYNTAXES
from gpnet_node.model.card import WEIGHTS_NAME, read_card
from gpnet_node.parts import Parts, now
from gpnet_node.store.database import journal_in_use, journal_mode, open_engine
from gpnet_node.store.outbox import Debt
from gpnet_node.store.states import Job, JobEvent, Series, SeriesEvent, SeriesState
from gpnet_node.web_config import WebConfig

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The newest series and jobs. ``waits``: what a series waits for, by UID; ``debts``: of each job shown.

    ``history`` is of the one series or job asked for, and empty if none was.
    """

    series: tuple[Series, ...]
    images: Mapping[str, int]
    waits: Mapping[str, str]
    jobs: tuple[Job, ...]
    debts: tuple[Debt, ...]
    history: tuple[SeriesEvent | JobEvent, ...]
    free_bytes: int
    retention: str | None  # what becomes of what is old; None: it is kept for good


def look(parts: Parts, *, uid: str | None, limit: int) -> Overview:
    """Look at the newest ``limit`` series and jobs, or at the series or job of one UID.

    Raises StorageError if there is no series or job of that UID.
    """
    history: tuple[SeriesEvent | JobEvent, ...] = ()
    if uid is None:
        series, jobs = parts.index.newest_series(limit=limit), parts.jobs.newest(limit=limit)
    else:
        series, jobs, history = _one(parts, uid)
    waiting = any(it.state is SeriesState.RECEIVING for it in series)
    node = parts.configuration.node
    watcher = Watcher(parts.engine, parts.archive.root, node=node, jobs=parts.jobs)
    return Overview(
        series=series,
        images={it.uid: len(parts.index.instances(it.uid)) for it in series},
        waits=watcher.explain(now()) if waiting else {},
        jobs=jobs,
        debts=tuple(debt for job in jobs for debt in parts.outbox.of_job(job.uid)),
        history=history,
        free_bytes=parts.archive.free_bytes(),
        retention=_retention(parts),
    )


def _retention(parts: Parts) -> str | None:
    kept = parts.configuration.node.retention
    before = kept.before(now())
    if before is None:
        return None
    due = parts.retention.due(before)
    sentence = f"of what is older than {kept.keep_days:g} days, {due.expired} series go within the hour"
    sentence += (
        f", {due.unfinished} stay: something is left to do for them, or was done since"
        if due.unfinished
        else ""
    )
    if due.promised:
        holders = ", ".join(kept.found_at)
        until = f"until they are found at {holders}" if holders else "for good"
        sentence += f", {due.promised} are kept safe for a peer {until}"
    return sentence


def _one(
    parts: Parts, uid: str
) -> tuple[tuple[Series, ...], tuple[Job, ...], tuple[SeriesEvent | JobEvent, ...]]:
    try:
        job = parts.jobs.get(uid)
    except StorageError:  # not a job; perhaps a series
        series = parts.index.series(uid)
        return (series,), parts.jobs.newest(series_uid=uid), parts.index.history(uid)
    return (parts.index.series(job.series_uid),), (job,), parts.jobs.history(uid)


def as_json(seen: Overview) -> dict[str, Any]:
    """The overview for a program."""
    return {
        "series": [
            {**_plain(asdict(it)), "images": seen.images[it.uid], "waits_for": waits_for(seen, it)}
            for it in seen.series
        ],
        "jobs": [_plain(asdict(job)) for job in seen.jobs],
        "outbox": [_plain(asdict(debt)) for debt in seen.debts],
        "history": [_plain(asdict(event)) for event in seen.history],
        "free_bytes": seen.free_bytes,
        "retention": seen.retention,
    }


def waits_for(seen: Overview, series: Series) -> str | None:
    """What a series still waits for, or None: it is decided."""
    if series.state is not SeriesState.RECEIVING:
        return None
    return seen.waits.get(series.uid, "instances are arriving")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else _text(value)
        for name, value in values.items()
    }


def _text(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else str(value)


# -- check ---------------------------------------------------------------------------------------------------


def check(configuration: Configuration, *, echo: bool) -> dict[str, Any]:
    """Say what a node with this configuration runs with; what is wrong stands under ``fault``.

    ``echo``: verify every destination by C-ECHO. Raises StorageError for a database that cannot be read.
    """
    node = configuration.node
    mode, why = _journal(configuration)
    return {
        "ae_title": node.ae_title,
        "listens": f"{node.host}:{node.port}{', TLS alone' if node.tls.enabled else ''}",
        "web": _web(node.web),
        "archive": str(node.archive),
        "database": str(node.database),
        "journal_mode": mode,
        "journal_reason": why,
        "peers": [_checked_peer(configuration, peer, echo=echo) for peer in configuration.peers],
        "routes": [
            {"name": route.name, "model": route.model, "destinations": list(route.destinations)}
            for route in configuration.routes
        ],
        "models": [_checked_model(configuration, name) for name in _models(configuration)],
        "codecs": {UID(uid).name: _decodes(uid) for uid in TRANSFER_SYNTAXES},
    }


def _web(web: WebConfig) -> str:
    """Where DICOMweb is, and who may ask."""
    if not web.enabled:
        return "not enabled"
    scheme = "https" if web.tls_certificate else "http"
    asks = "asks for a token" if web.token_file else "open to this machine"
    asks = "asks for a client certificate" if web.client_ca else asks
    heard = "; WITHOUT TLS THE TOKEN CAN BE OVERHEARD" if web.token_file and not web.tls_certificate else ""
    stores = ", may be stored to" if web.may_store else ""
    return f"{scheme}://{web.host}:{web.port}/dicom-web, {asks}{stores}{heard}"


def _journal(configuration: Configuration) -> tuple[str, str]:
    """The journal that is in use, or would be, and why."""
    chosen, why = journal_mode()
    if not configuration.node.database.is_file():
        return chosen, why
    engine = open_engine(configuration.node.database, make=False)
    used = journal_in_use(engine)
    engine.dispose()
    return used, why if used == chosen else f"{why}; the database still keeps another"


def _models(configuration: Configuration) -> Sequence[str]:
    return list(dict.fromkeys(route.model for route in configuration.routes))


def _checked_peer(configuration: Configuration, peer: PeerConfig, *, echo: bool) -> dict[str, Any]:
    rights = ["may store"] if peer.may_store else []
    rights += ["all classes"] if peer.may_store and peer.accept_other_classes else []
    rights += ["may query"] if peer.may_query else []
    rights += ["may retrieve"] if peer.may_retrieve else []
    rights += ["may report"] if peer.may_report else []
    rights += ["may commit"] if peer.may_commit else []
    rights += [f"is sent {', '.join(peer.objects)}"] if peer.is_destination else []
    checked: dict[str, Any] = {
        "name": peer.name,
        "ae_title": peer.ae_title,
        "address": f"{peer.host}:{peer.port}{', TLS' if peer.tls else ''}" if peer.is_destination else None,
        "rights": rights,
    }
    if echo and peer.is_destination:
        try:
            verify(peer, node=configuration.node)
            checked["echo"] = True
        except PeerError as exc:
            checked |= {"echo": False, "fault": str(exc)}
    return checked


def _checked_model(configuration: Configuration, name: str) -> dict[str, Any]:
    """Card and hash, without loading torch."""
    folder = configuration.node.model_weights / name
    try:
        card = read_card(folder)
        digest = hashlib.sha256()
        with (folder / WEIGHTS_NAME).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except GpnetError as exc:
        return {"name": name, "fault": str(exc)}
    except OSError as exc:
        return {"name": name, "fault": f"{folder / WEIGHTS_NAME}: {exc.strerror}"}
    checked: dict[str, Any] = {"name": name, "version": card.version, "sha256": digest.hexdigest()}
    if digest.hexdigest() != card.weights_sha256:
        checked["fault"] = f"{WEIGHTS_NAME} is not the file that the card names"
    return checked


def _decodes(transfer_syntax: str) -> bool:
    uid = UID(transfer_syntax)
    return not uid.is_encapsulated or bool(get_decoder(uid).is_available)
