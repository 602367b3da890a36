"""Whole nodes for tests: a configuration with defaults, and one running in processes of its own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gpnet_node.config import SHIPPED_MODEL, Configuration, NodeConfig, PeerConfig, RetryConfig, RouteConfig
from gpnet_node.eligibility import ContrastRule, EligibilityConfig
from gpnet_node.node import SegmentersOf
from gpnet_node.parts import Parts, Role, build
from gpnet_node.result_profile import USUAL_PROFILE, ResultProfile
from gpnet_node.store.states import Job, JobState
from gpnet_node.supervisor import Supervisor, supervised
from tests.peers import wait_until
from tests.segmenters import threshold_segmenters

# The drawn heads are small and coarse, so that the tests are quick; else they are 7T T2 series.
COARSE = EligibilityConfig(
    in_plane_spacing_mm=1.5,
    coverage_mm=(20.0, 40.0),
    contrast=(ContrastRule(name="t2", echo_time_ms=(30.0, 150.0)),),
)
# A head of few slices, where a test needs many of them.
SMALL = COARSE.model_copy(
    update={"in_plane_spacing_mm": 4.0, "slice_spacing_mm": 4.0, "min_slices": 4, "coverage_mm": (10.0, 10.0)}
)


def configuration_of(
    folder: Path,
    *,
    pacs: int | None = None,
    profile: ResultProfile = USUAL_PROFILE,
    eligible: EligibilityConfig = COARSE,
    **settings: Any,  # noqa: ANN401  # as many types as node.toml has
) -> Configuration:
    """A node with a scanner, and a PACS on port ``pacs`` with its profile; ``settings`` are node.toml's."""
    quick: dict[str, object] = {
        "archive": folder / "archive",
        "database": folder / "archive" / "node.sqlite",
        "host": "127.0.0.1",
        "port": 0,
        "quiet_seconds_counted": 0.5,
        "quiet_seconds_uncounted": 1.0,
        "gap_wait_seconds": 2.0,
        "drain_seconds": 20,
        "time_zone": "UTC",
        "log_format": "json",
        "retry": RetryConfig(first_seconds=0.5, factor=1.5, max_seconds=2, jitter=0),
    }
    peers = [PeerConfig(name="scanner", ae_title="SCANNER", may_store=True, accept_other_classes=True)]
    if pacs is not None:
        place = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs)
        peers.append(place.model_copy(update={"objects": profile.objects, "seg": profile.seg}))
    destinations = () if pacs is None else ("pacs",)
    return Configuration(
        node=NodeConfig.model_validate(quick | settings),
        peers=tuple(peers),
        routes=(
            RouteConfig(name="gpnet", model=SHIPPED_MODEL, destinations=destinations, eligible=eligible),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class RunningNode:
    """A node in processes of its own, and its store as another process sees it."""

    port: int
    web_port: int
    supervisor: Supervisor
    parts: Parts

    def processes(self, role: Role) -> list[psutil.Process]:
        """The process that plays ``role`` at the moment, and those that it has forked."""
        process = psutil.Process(self.supervisor.process_id(role))
        return [process, *process.children(recursive=True)]

    def job(self, *states: JobState, series_uid: str | None = None, seconds: float = 60.0) -> Job:
        """Wait for a job in one of ``states``, by default any, of one series or of any."""

        def found() -> Job | None:
            self.supervisor.tend()
            jobs = self.parts.jobs.newest(series_uid=series_uid)
            return next((job for job in jobs if not states or job.state in states), None)

        what = f"a job that is {' or '.join(states) or 'there'}"
        job = wait_until(found, seconds=seconds, what=what)
        assert job is not None
        return job

    def wait_until_it_was(self, state: JobState) -> None:
        """Wait until the newest job has come as far as ``state``, or further."""

        def passed() -> bool:
            self.supervisor.tend()
            jobs = self.parts.jobs.newest()
            return bool(jobs) and any(
                event.to_state is state for event in self.parts.jobs.history(jobs[0].uid)
            )

        wait_until(passed, seconds=60, what=f"a job that is {state}")


@contextlib.contextmanager
def running_node(
    configuration: Configuration,
    *roles: Role,
    segmenters: SegmentersOf = threshold_segmenters,
) -> Iterator[RunningNode]:
    """Run a node for the length of the block: all roles that it is configured for, or those given."""
    with supervised(configuration, roles or None, segmenters=segmenters) as supervisor:
        ports = supervisor.wait_until_ready(seconds=60)
        parts = build(configuration, owner="test")
        try:
            yield RunningNode(
                port=ports.get(Role.RECEIVER) or 0,
                web_port=ports.get(Role.WEB) or 0,
                supervisor=supervisor,
                parts=parts,
            )
        finally:
            parts.engine.dispose()
