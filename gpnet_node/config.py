"""The configuration: ``ae_config/*.toml`` read once, checked, and frozen.

``node.toml`` says who we are, ``peers.toml`` who may talk to us and where results go, ``routes.toml``
which series are segmented with which model. A missing key means the default below; an unknown key, a bad
value or a name that nothing bears stops the start with file, key and line.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from gpnet_node.audit_config import AuditConfig
from gpnet_node.eligibility import EligibilityConfig
from gpnet_node.errors import ConfigurationError
from gpnet_node.result_profile import BINARY, USUAL_PROFILE, ObjectKind, ResultProfile, SegForm
from gpnet_node.retention_config import RetentionConfig
from gpnet_node.section import Count, Name, Positive, Section
from gpnet_node.tls_config import TlsConfig
from gpnet_node.toml_file import KeyPath, TomlFile
from gpnet_node.web_config import WebConfig

NODE_FILE = "node.toml"
PEERS_FILE = "peers.toml"
ROUTES_FILE = "routes.toml"
SHIPPED_MODEL = "gpnet-1"  # folder under model_weights that the embedded defaults name

Port = Annotated[int, Field(ge=0, le=65535)]  # 0 lets the system choose, which tests do
# PS3.5 6.2: at most 16 characters of the default repertoire without backslash and control characters.
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]


def _address(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError as exc:
        raise ValueError(f"{host!r} is not an IP address; names are not looked up") from exc


class RetryConfig(Section):
    """How an unpaid delivery is tried again: exponential back-off with jitter."""

    first_seconds: Positive = 5.0
    factor: Annotated[float, Field(ge=1)] = 2.0
    max_seconds: Positive = 1800.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2  # share of the delay that chance may add
    give_up_hours: Positive = 72.0

    def delay(self, attempts: int, chance: float) -> timedelta:
        """How long to wait after so many attempts; ``chance`` of [0, 1) is the jitter."""
        # The exponent is bounded so that a peer away for weeks cannot overflow a float.
        seconds = min(self.first_seconds * self.factor ** min(attempts, 60), self.max_seconds)
        return timedelta(seconds=seconds * (1 + self.jitter * chance))


def _weights_beside_the_package() -> Path:
    return Path(__file__).resolve().parent.parent / "model_weights"


class NodeConfig(Section):
    """Who we are and how patient we are (``node.toml``). Relative paths count from the file's folder."""

    ae_title: AeTitle = "GPNET"
    host: str = "0.0.0.0"  # the address to listen on
    port: Port = 11112
    archive: Path
    database: Path = Path("node.sqlite")  # relative to the archive
    model_weights: Path = Field(default_factory=_weights_beside_the_package)
    which_version: Literal["latest", "first"] = (
        "latest"  # of a SOP instance that came twice with other content
    )

    quiet_seconds_counted: Positive = 5.0  # the headers tell the number of images, and it is reached
    quiet_seconds_uncounted: Positive = 30.0
    gap_wait_seconds: Positive = 60.0  # a series with a gap, or whose association was aborted
    open_association_limit_seconds: Positive = 120.0  # of quiet, for an association that never closes

    lease_seconds: Positive = 120.0  # a worker that is silent for so long has lost its job
    max_attempts: Count = 3  # a job that killed its worker or met a failing disk so often is parked
    job_minutes: Positive = 30.0  # a job that takes longer costs its worker and an attempt
    drain_seconds: Positive = 30.0
    backup_hours: Positive = 1.0

    warn_free_bytes: Annotated[int, Field(ge=0)] = 20_000_000_000  # on the archive's disk; then the log warns
    min_free_bytes: Annotated[int, Field(ge=0)] = 2_000_000_000  # then nothing more is received
    receiving_processes: Count = 4  # they share the port
    max_associations: Count = 32  # in all processes together
    max_associations_per_peer: Count = 24  # the others keep the rest
    max_pdu: Annotated[int, Field(ge=4096)] = 131_072  # bytes
    max_instance_bytes: Annotated[int, Field(ge=1024)] = 2_147_483_648
    acse_timeout_seconds: Positive = 30.0
    dimse_timeout_seconds: Positive = 60.0
    network_timeout_seconds: Positive = 120.0

    time_zone: str | None = None  # of the results' dates where the images name none; None: the system's
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Count | None = None  # None: as many as there are cores
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    retry: RetryConfig = RetryConfig()
    retention: RetentionConfig = RetentionConfig()
    tls: TlsConfig = TlsConfig()
    web: WebConfig = WebConfig()
    audit: AuditConfig | None = None  # None: no audit messages

    def local(self, moment: datetime) -> datetime:
        """Tell a moment in the node's time zone."""
        return moment.astimezone(ZoneInfo(self.time_zone) if self.time_zone else None)

    @field_validator("time_zone")
    @classmethod
    def _known_time_zone(cls, name: str | None) -> str | None:
        if name is not None and name not in available_timezones():
            raise ValueError("this system knows no such time zone; they are called like Europe/Amsterdam")
        return name

    @model_validator(mode="before")
    @classmethod
    def _database_in_archive(cls, values: object) -> object:
        """Resolve a relative database path against the archive, so that both move together."""
        if isinstance(values, dict) and isinstance(values.get("archive"), str | Path):
            database = values.get("database", "node.sqlite")
            if isinstance(database, str | Path):
                return {**values, "database": str(Path(values["archive"]) / database)}
        return values


class PeerConfig(Section):
    """One peer: its rights here, and, where host and port are given, a place to send results to."""

    name: Name
    ae_title: AeTitle
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: bool = False  # it is called within TLS; who calls this node needs TLS where [tls] is given
    may_store: bool = False  # may send instances to us
    may_query: bool = False  # may ask what we hold (C-FIND)
    may_retrieve: bool = (
        False  # may fetch it (C-GET), or have it sent to any peer with host and port (C-MOVE)
    )
    may_report: bool = False  # may say what it has made (MPPS), which tells when a series is complete
    may_commit: bool = False  # may ask us to take over safekeeping; a console may then delete its own copy
    accept_other_classes: bool = False  # keep its SR, secondary captures, raw data and the like
    hosts: tuple[str, ...] = ()  # IP addresses it may call from; empty means any
    confirm: Literal["commitment", "query"] | None = None  # how it is asked whether it keeps results safe
    objects: tuple[ObjectKind, ...] = ("seg", "sr")  # which results it is sent
    seg: SegForm = BINARY

    @property
    def profile(self) -> ResultProfile:
        """What it is sent."""
        return ResultProfile(objects=self.objects, seg=self.seg)

    @property
    def may_call(self) -> bool:
        """Whether it has anything to say here beyond verifying the connection (C-ECHO)."""
        rights = (self.may_store, self.may_query, self.may_retrieve, self.may_report, self.may_commit)
        return any(rights) or self.confirm == "commitment"

    @property
    def is_destination(self) -> bool:
        """Whether results can be sent to it."""
        return self.host is not None and self.port is not None

    @field_validator("hosts")
    @classmethod
    def _are_addresses(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Write each as the network layer does, since they are compared as texts."""
        return tuple(map(_address, hosts))

    @model_validator(mode="after")
    def _host_with_port(self) -> Self:
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port belong together: give both, or neither")
        if self.may_commit and self.host is None:
            raise ValueError("may_commit needs host and port, where the report is sent")
        return self


class RouteConfig(Section):
    """Series that are ``eligible`` are segmented with ``model`` and the results sent to ``destinations``."""

    name: Name
    model: Name  # a folder under model_weights
    destinations: tuple[str, ...] = ()  # names of peers
    kept: ResultProfile = USUAL_PROFILE  # written in any case, for those who ask this node
    eligible: EligibilityConfig = EligibilityConfig()


_Entry = TypeVar("_Entry", PeerConfig, RouteConfig)


class Configuration(Section):
    """All of it; ``load`` has checked the names across the files too."""

    node: NodeConfig
    peers: tuple[PeerConfig, ...] = ()
    routes: tuple[RouteConfig, ...] = (RouteConfig(name="gpnet", model=SHIPPED_MODEL),)

    def peer(self, name: str) -> PeerConfig:
        """Return the peer of that name. Raises ConfigurationError."""
        return _named(name, "peer", self.peers)

    def route(self, name: str) -> RouteConfig:
        """Return the route of that name. Raises ConfigurationError."""
        return _named(name, "route", self.routes)

    def caller(self, ae_title: str) -> PeerConfig | None:
        """Return the peer that has rights here under this calling AE title, or None: there is none."""
        return next((p for p in self.peers if p.may_call and p.ae_title == ae_title.strip()), None)

    def destination(self, ae_title: str) -> PeerConfig | None:
        """Return the peer that objects can be sent to under this AE title, or None: there is none."""
        return next((p for p in self.peers if p.is_destination and p.ae_title == ae_title.strip()), None)

    def profiles(self, route: RouteConfig | None) -> tuple[ResultProfile, ...]:
        """What is written of a route's series; None: of one that no gate was asked about."""
        if route is None:
            return (USUAL_PROFILE,)
        return (route.kept, *(self.peer(name).profile for name in route.destinations))

    def wants(self, kind: ObjectKind) -> bool:
        """Whether any destination of a route is sent objects of that kind."""
        names = {name for route in self.routes for name in route.destinations}
        return any(kind in self.peer(name).objects for name in names)

    def told_of_refusals(self, route: RouteConfig | None = None) -> tuple[str, ...]:
        """Names of the route's destinations, or of all, that want to know why a series was not segmented."""
        routes = self.routes if route is None else (route,)
        names = dict.fromkeys(name for it in routes for name in it.destinations)
        return tuple(name for name in names if "refusal" in self.peer(name).objects)

    def faults(self) -> Iterator[tuple[str, KeyPath, str]]:
        """Yield (file, key, sentence) for each name that is used twice or that nothing bears."""
        for key, sentence in self.node.web.faults():
            yield NODE_FILE, ("web", key), sentence
        for key, sentence in self.node.tls.faults():
            yield NODE_FILE, ("tls", key), sentence
        if self.node.audit is not None:
            faults = self.node.audit.faults(self.node.archive, has_certificates=self.node.tls.enabled)
            yield from ((NODE_FILE, ("audit", key), sentence) for key, sentence in faults)
        for index, peer in enumerate(self.peers):
            if peer.tls and not self.node.tls.enabled:
                yield PEERS_FILE, ("peer", index, "tls"), f"there is no [tls] in {NODE_FILE}"
        yield from _repeated(PEERS_FILE, "peer", "name", dict(enumerate(p.name for p in self.peers)))
        callers = {index: p.ae_title for index, p in enumerate(self.peers) if p.may_call}
        yield from _repeated(PEERS_FILE, "peer", "ae_title", callers)
        yield from _repeated(ROUTES_FILE, "route", "name", dict(enumerate(r.name for r in self.routes)))
        reachable = {p.name for p in self.peers if p.is_destination}
        for name in self.node.retention.found_at:
            if name not in reachable:
                yield NODE_FILE, ("retention", "found_at"), _unreachable(name, self.peers)
        for index, route in enumerate(self.routes):
            for name in route.destinations:
                if name not in reachable:
                    yield ROUTES_FILE, ("route", index, "destinations"), _unreachable(name, self.peers)
            if not (self.node.model_weights / route.model / "card.toml").is_file():
                sentence = (
                    f"no model {route.model!r}: {self.node.model_weights / route.model} has no card.toml"
                )
                yield ROUTES_FILE, ("route", index, "model"), sentence


def defaults(
    archive: Path, *, peers: Sequence[PeerConfig] = (), destinations: Sequence[str] = ()
) -> Configuration:
    """Return the embedded defaults with their one route, which sends to ``destinations``."""
    route = RouteConfig(name="gpnet", model=SHIPPED_MODEL, destinations=tuple(destinations))
    return Configuration(node=NodeConfig(archive=archive), peers=tuple(peers), routes=(route,))


def load(folder: Path) -> Configuration:
    """Read ``node.toml``, ``peers.toml`` and ``routes.toml`` in ``folder``; the last two may be absent.

    Raises ConfigurationError with one line per fault, each with file, key and line.
    """
    if not (folder / NODE_FILE).is_file():
        raise ConfigurationError(f"{folder / NODE_FILE}: there is no such file")
    files = {name: TomlFile(folder / name) for name in (NODE_FILE, PEERS_FILE, ROUTES_FILE)}
    node = files[NODE_FILE].validated(NodeConfig)
    peers = files[PEERS_FILE].validated(_PeersFile)
    routes = files[ROUTES_FILE].validated(_RoutesFile)
    paths = {k: (folder / getattr(node, k)).resolve() for k in ("archive", "database", "model_weights")}
    audit = None if node.audit is None else node.audit.resolved(paths["archive"])
    changed = {
        **paths,
        "web": node.web.resolved(folder),
        "tls": node.tls.resolved(folder),
        "audit": audit,
    }
    configuration = Configuration(node=node.model_copy(update=changed), peers=peers.peer, routes=routes.route)
    faults = [files[name].fault(key, sentence) for name, key, sentence in configuration.faults()]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return configuration


class _PeersFile(Section):
    peer: tuple[PeerConfig, ...] = ()


class _RoutesFile(Section):
    route: tuple[RouteConfig, ...] = Configuration.model_fields["routes"].default


def _repeated(
    file: str, table: str, key: str, values: Mapping[int, str]
) -> Iterator[tuple[str, KeyPath, str]]:
    first: dict[str, int] = {}
    for index, value in values.items():
        if first.setdefault(value, index) != index:
            yield file, (table, index, key), f"{value!r} is taken by {table} {first[value] + 1}"


def _unreachable(name: str, peers: Sequence[PeerConfig]) -> str:
    if any(p.name == name for p in peers):
        return f"peer {name!r} has no host and port in {PEERS_FILE}, so nothing can be sent to it"
    return f"there is no peer {name!r} in {PEERS_FILE}"


def _named(name: str, kind: str, entries: Sequence[_Entry]) -> _Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    raise ConfigurationError(f"there is no {kind} {name!r} in the configuration")
