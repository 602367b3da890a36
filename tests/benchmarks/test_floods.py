"""What a scanner can pour into the door: ten thousand series at once, and one image of two gigabytes."""

import os
import shutil
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from gpnet_node.parts import Role
from gpnet_node.store.states import SeriesState
from tests.benchmarks.figures import Bar, Figure, Figures
from tests.benchmarks.memory import peak_mb, resident_mb
from tests.benchmarks.scanner import Printer, new_uid, send
from tests.nodes import RunningNode, configuration_of, running_node
from tests.peers import echoscu, wait_until

pytestmark = [pytest.mark.speed, pytest.mark.timeout(1200)]
SERIES = int(os.environ.get("GPNET_BENCH_TINY_SERIES", "10000"))
BAR_MB = 50.0
FRAMES, SIDE = 4000, 512  # 2,097,152,000 bytes of pixels


def test_ten_thousand_tiny_series_are_all_kept_and_decided_in_bounded_memory(
    figures: Figures, scratch: Path
) -> None:
    folder = scratch / "tiny series"
    printer = Printer(folder / "prototype", side=16)
    for number in range(SERIES):
        printer.series(folder / "sent" / f"{number:05d}", 1)
    with running_node(configuration_of(folder, log_level="warning"), Role.RECEIVER) as node:
        before = resident_mb(receiver_of(node))
        send(node.port, "GPNET", [folder / "sent"], subfolders=True)
        assert echoscu(node.port).returncode == 0
        wait_until(lambda: decided(node) == SERIES, seconds=600, what="every series being decided")
        growth = resident_mb(receiver_of(node)) - before

    bar = Bar(words=f"under {BAR_MB:.0f} MB", met=growth < BAR_MB, hard=True)
    figures.add(
        Figure(what=f"receiver's growth over {SERIES} series of one image", unit="MB", ours=[growth], bar=bar)
    )


def test_an_image_of_two_gigabytes_is_kept_in_bounded_memory(figures: Figures, scratch: Path) -> None:
    folder = scratch / "two gigabytes"
    path = two_gigabytes(folder / "sent")
    with running_node(configuration_of(folder, log_level="warning"), Role.RECEIVER) as node:
        before = resident_mb(receiver_of(node))
        send(node.port, "GPNET", [path.parent])
        wait_until(lambda: decided(node) == 1, seconds=120, what="the series being decided")
        growth = peak_mb(receiver_of(node)) - before
        (series,) = node.parts.index.newest_series()
        (kept,) = node.parts.index.instances(series.uid)
        assert (node.parts.archive.root / kept.path).stat().st_size > FRAMES * SIDE * SIDE * 2
    shutil.rmtree(folder)

    bar = Bar(words=f"under {BAR_MB:.0f} MB", met=growth < BAR_MB, hard=True)
    figures.add(
        Figure(what="receiver's peak growth over an image of 2 GB", unit="MB", ours=[growth], bar=bar)
    )


def receiver_of(node: RunningNode) -> int:
    process_id = node.supervisor.process_id(Role.RECEIVER)
    assert process_id is not None
    return process_id


def decided(node: RunningNode) -> int:
    return node.parts.index.counts().get(SeriesState.COMPLETE, 0)


def two_gigabytes(folder: Path) -> Path:
    """A multi-frame image whose pixels are a hole in the file: quick to make, long to send."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = EnhancedMRImageStorage, new_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = new_uid(), new_uid()
    image.Modality, image.PatientID, image.PatientName = "MR", "1", "A"
    image.NumberOfFrames, image.Rows, image.Columns = FRAMES, SIDE, SIDE
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    folder.mkdir(parents=True)
    path = folder / "image.dcm"
    image.save_as(path, enforce_file_format=True)
    length = FRAMES * SIDE * SIDE * 2
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + length.to_bytes(4, "little"))
        file.truncate(file.tell() + length)
    return path
