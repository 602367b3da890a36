from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from sqlalchemy import select

from gpnet_node.store.archive import Archive
from gpnet_node.store.database import associations, reading, series_associations
from gpnet_node.store.index import Index
from gpnet_node.store.reindex import as_kept, reindex
from gpnet_node.store.states import AssociationOutcome, SeriesState
from gpnet_node.store.versions import data_set_digest
from tests.factories import mr_series
from tests.stores import keep, new_archive, new_database

NOW = datetime.now(UTC)  # files date from now


def filled(folder: Path, *, slices: int = 3) -> tuple[Archive, str]:
    archive = new_archive(folder)
    arrivals = [keep(archive, path) for path in mr_series(folder / "sent", slices=slices)]
    return archive, arrivals[0].header.series_uid


def test_a_lost_index_is_rebuilt_from_the_archive_with_what_the_receiver_had_noted(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    noted = [keep(archive, path) for path in mr_series(tmp_path / "sent", slices=3)]
    index = Index(new_database(tmp_path))

    found = reindex(archive, index, now=NOW)

    assert (found.found, found.added, found.unreadable) == (3, 3, ())
    rebuilt = index.instances(noted[0].header.series_uid)
    assert [instance.path for instance in rebuilt] == [arrival.path for arrival in noted]
    assert rebuilt[0].images_in_acquisition == noted[0].header.images_in_acquisition
    assert index.series(noted[0].header.series_uid).state is SeriesState.RECEIVING


def test_what_the_index_lacked_came_on_an_association_that_ended_with_the_receiver(tmp_path: Path) -> None:
    """Half a series is not taken for a whole one because nothing is known of who sent it."""
    archive, series = filled(tmp_path)
    engine = new_database(tmp_path)

    reindex(archive, Index(engine), now=NOW)

    touching = select(associations).join(series_associations)
    with reading(engine) as connection:
        (row,) = connection.execute(touching.where(series_associations.c.series_uid == series)).mappings()
    assert (row["outcome"], row["closed_at"]) == (AssociationOutcome.LOST, NOW)


def test_running_it_again_adds_nothing(tmp_path: Path) -> None:
    archive, _ = filled(tmp_path)
    index = Index(new_database(tmp_path))
    reindex(archive, index, now=NOW)

    again = reindex(archive, index, now=NOW)

    assert (again.found, again.added) == (3, 0)


def test_only_what_is_missing_is_added_and_takes_up_its_series_again(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    first, *rest = [keep(archive, path) for path in mr_series(tmp_path / "sent", slices=3)]
    index = Index(new_database(tmp_path))
    index.record([first])

    found = reindex(archive, index, now=NOW + timedelta(days=3))

    assert (found.found, found.added) == (3, 2)
    assert len(index.instances(first.header.series_uid)) == 1 + len(rest)
    assert index.series(first.header.series_uid).state is SeriesState.RECEIVING


def test_what_arrived_long_before_the_index_was_lost_is_not_segmented_once_more(tmp_path: Path) -> None:
    archive, series = filled(tmp_path)
    index = Index(new_database(tmp_path))

    reindex(archive, index, now=NOW + timedelta(days=3))

    assert index.series(series).state is SeriesState.COMPLETE
    assert len(index.instances(series)) == 3


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_added(tmp_path: Path) -> None:
    archive, series = filled(tmp_path)
    bad = Path("instances", "00", "1.2.3.1.dcm")
    (archive.root / bad).write_bytes(b"something else")
    index = Index(new_database(tmp_path))

    found = reindex(archive, index, now=NOW)

    assert found.unreadable == (bad,)
    assert len(index.instances(series)) == 3


def test_a_file_that_cannot_be_opened_is_named_and_does_not_stop_the_receiver_from_starting(
    tmp_path: Path,
) -> None:
    archive, series = filled(tmp_path)
    bad = Path("instances", "00", "1.2.3.1.dcm")
    (archive.root / bad).mkdir()  # even root cannot read it as a file
    index = Index(new_database(tmp_path))

    found = reindex(archive, index, now=NOW)

    assert found.unreadable == (bad,)
    assert len(index.instances(series)) == 3


def test_the_header_of_a_rebuilt_row_is_the_one_that_was_sent(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    sent = mr_series(tmp_path / "sent", slices=1, PatientName="Müller^Zoë", ImagesInAcquisition=1)
    noted = keep(archive, sent[0])
    index = Index(new_database(tmp_path))

    reindex(archive, index, now=NOW)

    (row,) = index.instances(noted.header.series_uid)
    assert row.images_in_acquisition == 1
    assert noted.header.patient_name == "Müller^Zoë"


def test_progress_ends_at_the_number_of_missing_instances(tmp_path: Path) -> None:
    archive, _ = filled(tmp_path)
    told: list[tuple[int, int]] = []

    reindex(archive, Index(new_database(tmp_path)), now=NOW, progress=lambda *numbers: told.append(numbers))

    assert told == [(3, 3)]


def test_what_came_again_otherwise_encoded_is_noted_as_it_is_kept(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    (path,) = mr_series(tmp_path / "sent", slices=1)
    first = keep(archive, path)
    again = replace(first, transfer_syntax_uid=ImplicitVRLittleEndian, sha256="0" * 64, received_at=NOW)

    noted = as_kept(archive.root, again)

    assert noted.transfer_syntax_uid == ExplicitVRLittleEndian
    assert (noted.sha256, noted.size_bytes) == data_set_digest(archive.root / first.path)
    assert (noted.received_at, noted.calling_ae) == (NOW, "SCANNER")
