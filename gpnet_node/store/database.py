"""The database: one SQLite file, its tables, and the ways to use it: ``reading``, ``writing``."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.types import TypeDecorator

from gpnet_node.errors import ConfigurationError, StorageError
from gpnet_node.store.attributes import Level, columns_of
from gpnet_node.store.matching import matches, resembles

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30.0  # how long a statement waits for another process's transaction

Version = tuple[int, int, int]
# SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that several connections use; the repair was carried back.
WAL_REPAIRED: Version = (3, 51, 3)
WAL_REPAIRED_BRANCHES: tuple[Version, ...] = ((3, 50, 7), (3, 44, 6))


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept as text of fixed width in UTC, so that it sorts and a person can read it."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Refuse a moment without time zone rather than guess one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without time zone")
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its time zone."""
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

associations = Table(
    "associations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("calling_ae", String, nullable=False),
    Column("host", String, nullable=False),
    Column("owner", String, nullable=False),  # the receiver process that holds it
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("outcome", String, nullable=False),  # open, released, aborted, lost
    Index("associations_by_outcome", "outcome"),
)

series = Table(
    "series",
    metadata,
    Column("uid", String, primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("modality", String, nullable=False),
    Column("description", String, nullable=False),
    Column("patient_id", String, nullable=False),
    Column("patient_name", String, nullable=False),
    Column("state", String, nullable=False),
    Column("revision", Integer, nullable=False),  # grows when more arrives after a decision
    Column("reason", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("decided_at", UtcDateTime),
    Index("series_by_state", "state", "last_received_at"),
)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("series_uid", ForeignKey("series.uid"), nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("transfer_syntax_uid", String, nullable=False),
    Column("sha256", String, nullable=False),  # of the data set as it was sent
    Column("size_bytes", Integer, nullable=False),
    Column("path", String, nullable=False, unique=True),  # relative to the archive
    Column("instance_number", Integer),
    Column("acquisition_number", Integer),
    Column("images_in_acquisition", Integer),
    Column("number_of_frames", Integer),
    Column("concatenation_uid", String),
    Column("in_concatenation_total", Integer),
    Column("received_at", UtcDateTime, nullable=False),
    Column("association_id", ForeignKey("associations.id")),
    Column("calling_ae", String, nullable=False),
    Index("instances_by_series", "series_uid"),
)

series_associations = Table(
    "series_associations",
    metadata,
    Column("series_uid", ForeignKey("series.uid"), primary_key=True),
    Column("association_id", ForeignKey("associations.id"), primary_key=True),
    Column("last_at", UtcDateTime, nullable=False),
)

series_history = Table(
    "series_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("series_uid", ForeignKey("series.uid"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("state", String, nullable=False),  # after what the sentence tells
    Column("revision", Integer, nullable=False),
    Column("sentence", String, nullable=False),
    Index("series_history_by_series", "series_uid"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("uid", String, primary_key=True),
    Column("series_uid", ForeignKey("series.uid"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String),
    Column("lease_expires_at", UtcDateTime),
    Column("route", String),
    Column("model", String),
    Column("label_digest", String),
    Column("plan", String),  # JSON of results.acpc.Plan, as the operator gave it
    Column("refusal", String),  # why nothing is segmented: the job only reports that
    Column("withdrawn", String),  # why its result no longer holds: what it was made of does not count
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("jobs_by_state", "state", "created_at"),
    Index("jobs_by_series", "series_uid"),
)

job_history = Table(
    "job_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_uid", ForeignKey("jobs.uid"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("from_state", String),
    Column("to_state", String, nullable=False),
    Column("sentence", String, nullable=False),
    Index("job_history_by_job", "job_uid"),
)

results = Table(
    "results",
    metadata,
    Column("job_uid", ForeignKey("jobs.uid"), primary_key=True),
    Column("name", String, primary_key=True),  # seg, sr, mr-017
    Column("kind", String, nullable=False),  # seg, sr, mr
    Column("sop_class_uid", String, nullable=False),
    Column("sop_instance_uid", String, nullable=False, unique=True),
    Column("path", String, nullable=False),  # relative to the archive
    Column("sha256", String, nullable=False),  # of the file
    Column("size_bytes", Integer),  # of the data set
    Column("attributes", JSON(none_as_null=True)),  # what the catalogue has of it once it may leave
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_uid", ForeignKey("jobs.uid"), nullable=False),
    Column("name", String, nullable=False),  # of the object
    Column("peer", String, nullable=False),
    Column("state", String, nullable=False),  # owed, paid, confirmed, left_out, failed
    Column("attempts", Integer, nullable=False),
    Column("owed_since", UtcDateTime, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("status", Integer),  # of the last answer (PS3.7 C)
    Column("comment", String, nullable=False),
    Column("transaction_uid", String),  # of the last request for storage commitment
    Column("asked_at", UtcDateTime),  # whether the peer keeps it safe
    Index("outbox_by_debt", "job_uid", "name", "peer", unique=True),
    Index("outbox_by_state", "state", "next_attempt_at"),
)

# What others say that there is: each performed procedure step (MPPS), and the images that it lists.
performed_steps = Table(
    "performed_steps",
    metadata,
    Column("uid", String, primary_key=True),
    Column("calling_ae", String, nullable=False),
    Column("status", String, nullable=False),  # Performed Procedure Step Status
    Column("updated_at", UtcDateTime, nullable=False),
)

listed_images = Table(
    "listed_images",
    metadata,
    Column("step_uid", ForeignKey("performed_steps.uid"), primary_key=True),
    Column("sop_instance_uid", String, primary_key=True),
    Column("series_uid", String, nullable=False),  # which may not be here yet
    Index("listed_images_by_series", "series_uid"),
)

# What rejection notes say: instances that no longer count, which may not be here yet.
rejected_instances = Table(
    "rejected_instances",
    metadata,
    Column("note_uid", String, primary_key=True),  # SOP Instance UID of the note
    Column("sop_instance_uid", String, primary_key=True),
    Column("title", String, nullable=False),  # the note's, a code of DCM
    Column("calling_ae", String, nullable=False),
    Index("rejected_instances_by_instance", "sop_instance_uid"),
)

# Requests by peers that this node take over the safekeeping of what it holds (storage commitment).
commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("peer", String, nullable=False),
    Column("state", String, nullable=False),  # owed, paid, failed: the report
    Column("attempts", Integer, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("comment", String, nullable=False),
    Index("commitments_by_state", "state", "next_attempt_at"),
)

commitment_instances = Table(
    "commitment_instances",
    metadata,
    Column("transaction_uid", ForeignKey("commitments.transaction_uid"), primary_key=True),
    Column("sop_instance_uid", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Index("commitment_instances_by_instance", "sop_instance_uid"),
)


def _texts(*levels: Level) -> list[Column[str]]:
    keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return [Column(name, String, nullable=False) for name in columns_of(*levels) if name not in keys]


# What can be asked for: what was received, and results that may leave. Columns as ``store.attributes`` says.
catalogue_studies = Table(
    "catalogue_studies",
    metadata,
    Column("StudyInstanceUID", String, primary_key=True),
    *_texts(Level.PATIENT, Level.STUDY),
    Index("catalogue_studies_by_patient", "PatientID"),
    Index("catalogue_studies_by_date", "StudyDate"),
    Index("catalogue_studies_by_accession", "AccessionNumber"),
)

catalogue_series = Table(
    "catalogue_series",
    metadata,
    Column("SeriesInstanceUID", String, primary_key=True),
    Column("StudyInstanceUID", ForeignKey("catalogue_studies.StudyInstanceUID"), nullable=False),
    *_texts(Level.SERIES),
    Index("catalogue_series_by_study", "StudyInstanceUID", "Modality"),
)

catalogue_instances = Table(
    "catalogue_instances",
    metadata,
    Column("SOPInstanceUID", String, primary_key=True),
    Column("SeriesInstanceUID", ForeignKey("catalogue_series.SeriesInstanceUID"), nullable=False),
    *_texts(Level.IMAGE),
    Column("version", Integer, nullable=False),  # the newest; a result has one
    Column("path", String, nullable=False),  # relative to the archive
    Column("size_bytes", Integer, nullable=False),
    Column("job_uid", ForeignKey("jobs.uid")),  # of a result
    Column("whole", Boolean(create_constraint=False), nullable=False),  # or the header is still to be read
    Index("catalogue_instances_by_series", "SeriesInstanceUID", "SOPClassUID"),
    Index("catalogue_instances_by_job", "job_uid"),
)


def journal_mode(version: Version = sqlite3.sqlite_version_info[:3]) -> tuple[str, str]:
    """Return the journal that is safe with this SQLite ("WAL" or "TRUNCATE"), and why, in a sentence."""
    name = ".".join(map(str, version))
    if version >= WAL_REPAIRED or any(v[:2] == version[:2] and version >= v for v in WAL_REPAIRED_BRANCHES):
        return "WAL", f"SQLite {name} has the repaired write-ahead log"
    return "TRUNCATE", (
        f"SQLite {name} can corrupt a write-ahead log that several processes use "
        "(repaired in 3.51.3, 3.50.7 and 3.44.6), so the rollback journal is used"
    )


def journal_in_use(engine: Engine) -> str:
    """Return the journal that SQLite says it uses, which is not always the one that it was asked for.

    Raises StorageError.
    """
    with reading(engine) as connection:
        return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()).upper()


def open_engine(path: Path, *, make: bool = True) -> Engine:
    """Open the SQLite file, which must lie on a local disk, making it and its folder if need be and allowed.

    What is made is for the node's own account alone.
    Every connection writes through to the disk (``synchronous=FULL``), checks foreign keys and waits for
    other processes. Raises StorageError.
    """
    if not make and not path.is_file():
        raise StorageError(f"there is no database {path}: the node has not run with this configuration yet")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise StorageError(f"database {path}: {exc.strerror}") from exc
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not where the driver guesses
    connection.create_function("dicom_matches", 3, matches, deterministic=True)
    connection.create_function("dicom_resembles", 2, resembles, deterministic=True)
    for pragma in (f"journal_mode={journal_mode()[0]}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("transaction", "DEFERRED")
    if kind != "NONE":
        connection.exec_driver_sql(f"BEGIN {kind}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One read transaction; fetch all rows inside it. Raises StorageError."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, begun IMMEDIATE: it holds the write lock from the start, so it never fails
    half-way because another process wrote in between. Raises StorageError.
    """
    with _translated(), engine.connect() as plain:
        connection = plain.execution_options(transaction="IMMEDIATE")
        with connection.begin():
            yield connection


@contextmanager
def outside_transaction(engine: Engine) -> Iterator[Connection]:
    """A connection for what SQLite does in no transaction (VACUUM). Raises StorageError."""
    with _translated(), engine.connect().execution_options(transaction="NONE") as connection:
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as exc:  # its own text would quote the statement, and so patient data
        raise StorageError(f"database: {exc.orig}") from exc
    except PoolTimeoutError as exc:
        raise StorageError("database: no connection became free") from exc


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version's shape, in one transaction.

    Raises StorageError, and ConfigurationError for a database that a newer version has made.
    """
    config = _migrations()
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            raise ConfigurationError(
                f"database {engine.url.database}: a newer version of gpnet-node has made it ({exc}). "
                "Run that version, or give this one another database"
            ) from exc


def require_current(engine: Engine) -> None:
    """Raise StorageError unless the tables have this version's shape; the write lock is left alone."""
    wanted = ScriptDirectory.from_config(_migrations()).get_current_head()
    with reading(engine) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != wanted:
        raise StorageError(
            f"database {engine.url.database} has revision {found}, and this version of gpnet-node needs "
            f"{wanted}: start the node, or use the version that made it"
        )


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
