import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gpnet_node.errors import ConfigurationError, StorageError, UnreadableInstanceError
from gpnet_node.store.archive import Archive, Kept, instance_path
from tests.factories import mr_series, rewrite
from tests.stores import new_archive


def put(archive: Archive, path: Path) -> Kept:
    """Keep a file as the receiver does."""
    file = archive.incoming()
    file.write(path.read_bytes())
    return archive.keep(file, dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def unfinished(archive: Archive) -> list[Path]:
    return [path for path in (archive.root / "tmp").rglob("*") if path.is_file()]


def files(archive: Archive) -> list[Path]:
    return sorted(path for path in archive.root.rglob("*") if path.is_file())


def one_image(folder: Path, **attributes: Any) -> Path:  # noqa: ANN401
    return mr_series(folder, slices=1, **attributes)[0]


def test_a_kept_file_has_its_own_name_and_exactly_the_bytes_that_came(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    image = one_image(tmp_path / "sent")

    kept = put(archive, image)

    uid = dcmread(image).SOPInstanceUID
    assert (kept.version, kept.new) == (1, True)
    assert kept.path.name == f"{uid}.1.dcm"
    assert (archive.root / kept.path).read_bytes() == image.read_bytes()
    assert list(archive.instances()) == [(uid, 1, kept.path)]
    assert unfinished(archive) == []


def test_a_file_counts_only_after_file_name_and_folder_are_on_the_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive(tmp_path)
    image = one_image(tmp_path / "sent")
    calls: list[tuple[str, str]] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().suffix))
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        calls.append(("link", target.suffix))
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    put(archive, image)

    assert calls == [("fsync", ".part"), ("link", ".dcm"), ("fsync", "")]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_fsync_nothing_is_kept_and_fsync_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, code: int
) -> None:
    archive = new_archive(tmp_path)
    image = one_image(tmp_path / "sent")
    calls = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(code, os.strerror(code))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match=os.strerror(code)):
        put(archive, image)

    assert len(calls) == failing
    assert files(archive) == []


def test_a_folder_whose_name_may_not_be_on_the_disk_is_synchronised_by_the_next_who_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive(tmp_path)
    synchronised: list[str] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synchronised.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        if len(synchronised) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError):
        archive.keep_result("job-1", "seg.dcm", b"object")
    archive.keep_result("job-1", "seg.dcm", b"object")

    assert synchronised[:2] == ["results", "results"]


def test_the_same_bytes_again_are_success_and_nothing_else(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    image = one_image(tmp_path / "sent")
    first = put(archive, image)

    again = put(archive, image)

    assert again == Kept(path=first.path, version=1, new=False)
    assert len(files(archive)) == 1


def test_other_content_under_the_same_uid_is_a_version_beside_the_first_which_is_untouched(
    tmp_path: Path,
) -> None:
    archive = new_archive(tmp_path)
    image = one_image(tmp_path / "sent")
    first = put(archive, image)
    before = (archive.root / first.path).read_bytes()
    rewrite(image, PatientID="corrected")

    second = put(archive, image)

    assert (second.version, second.new) == (2, True)
    assert (archive.root / first.path).read_bytes() == before
    assert put(archive, image) == Kept(path=second.path, version=2, new=False)
    assert [version for _, version, _ in archive.instances()] == [1, 2]


def test_two_associations_with_different_content_of_one_uid_both_find_a_place(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    images = [one_image(tmp_path / str(n), SOPInstanceUID="1.2.3", PatientID=str(n)) for n in range(4)]
    kept: list[Kept] = []

    threads = [threading.Thread(target=lambda i=image: kept.append(put(archive, i))) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(k.version for k in kept) == [1, 2, 3, 4]
    ids = {dcmread(archive.root / k.path).PatientID for k in kept}
    assert ids == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    "uid", ["", "../../etc/passwd", "1.2/3", "1..2", ".1", "1.", "1.2\n", "1.2.x", "1" * 65, "١.٢"]
)
def test_what_is_no_uid_never_becomes_a_path(tmp_path: Path, uid: str) -> None:
    archive = new_archive(tmp_path)
    file = archive.incoming()

    with pytest.raises(UnreadableInstanceError, match="not a UID"):
        archive.keep(file, uid)

    assert files(archive) == []


def test_a_uid_and_its_version_can_be_told_apart() -> None:
    assert instance_path("1.2.3", 1).name != instance_path("1.2", 31).name
    assert instance_path("1.2.3", 1) != instance_path("1.2.3.1", 1)


def test_what_a_killed_receiver_left_unfinished_is_removed_and_what_was_kept_stays(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    kept = put(archive, one_image(tmp_path / "sent"))
    archive.incoming().write(b"half an image")

    assert archive.discard_unfinished("incoming") == 1
    assert files(archive) == [archive.root / kept.path]


def test_each_role_removes_what_it_left_unfinished_and_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = new_archive(tmp_path)
    received = archive.incoming()
    real_link = os.link

    def link(source: Path, target: Path) -> None:  # the receiver starts again before the result has its name
        assert archive.discard_unfinished("incoming") == 1
        real_link(source, target)

    monkeypatch.setattr(os, "link", link)
    kept = archive.keep_result("job-1", "seg.dcm", b"content")
    again = archive.incoming()

    assert (archive.root / kept.path).read_bytes() == b"content"
    assert archive.discard_unfinished("results") == 0
    assert unfinished(archive) == [Path(again.name)]
    archive.discard(received)


def test_a_discarded_file_leaves_nothing_and_may_be_discarded_twice(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    file = archive.incoming()
    file.write(b"x")

    archive.discard(file)
    archive.discard(file)

    assert files(archive) == []


def test_a_second_node_on_the_same_archive_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)

    with (
        archive.lock("receiver"),
        pytest.raises(ConfigurationError, match=rf"receiver \(process {os.getpid()}\)"),
        Archive(archive.root).lock("receiver"),
    ):
        pass


def test_a_lock_is_free_again_after_its_holder_is_gone_and_other_roles_have_their_own(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)

    with archive.lock("receiver"), archive.lock("worker"):
        pass

    with archive.lock("receiver"):
        assert (archive.root / "locks" / "receiver.lock").read_text() == f"{os.getpid()}\n"


def test_the_same_result_again_is_found_and_not_written(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    first = archive.keep_result("job-1", "seg.dcm", b"content")
    inode = (archive.root / first.path).stat().st_ino

    again = archive.keep_result("job-1", "seg.dcm", b"content")

    assert again == first
    assert first.path == Path("results/job-1/seg.dcm")
    assert (archive.root / first.path).stat().st_ino == inode


def test_another_result_under_the_same_name_is_numbered_beside_it(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    first = archive.keep_result("job-1", "seg.dcm", b"of a run that died")

    second = archive.keep_result("job-1", "seg.dcm", b"of the next run")

    assert second.path == Path("results/job-1/seg.2.dcm")
    assert second.sha256 != first.sha256
    assert (archive.root / first.path).read_bytes() == b"of a run that died"
    assert archive.keep_result("job-1", "seg.dcm", b"of the next run") == second


def test_an_archive_that_cannot_be_written_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="archive"):
        Archive(tmp_path / "file" / "archive").prepare()


def test_no_other_account_may_look_into_the_archive(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        archive = new_archive(tmp_path)
        archive.keep_result("job-1", "seg.dcm", b"content")
        with archive.lock("worker"):
            pass
    finally:
        os.umask(before)

    assert archive.root.stat().st_mode & 0o777 == 0o700
    folders = [path for path in archive.root.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o077 for path in folders} == {0}
    assert (archive.root / "locks" / "worker.lock").stat().st_mode & 0o077 == 0


def test_an_archive_that_the_operator_has_opened_to_a_group_stays_so(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    archive.root.chmod(0o750)

    archive.prepare()

    assert archive.root.stat().st_mode & 0o777 == 0o750


def test_preparing_again_keeps_what_is_there(tmp_path: Path) -> None:
    archive = new_archive(tmp_path)
    kept = put(archive, one_image(tmp_path / "sent"))

    archive.prepare()

    assert files(archive) == [archive.root / kept.path]
    assert archive.free_bytes() > 0
