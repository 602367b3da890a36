"""The head of a kept file, read by pydicom, which did not write it."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from gpnet_node.errors import UnreadableInstanceError
from gpnet_node.intake.keeping import Announced, preamble
from gpnet_node.results.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def announced(instance: str = "1.2.3", sender: str = "SCANNER") -> Announced:
    return Announced(
        sop_class_uid=MRImageStorage,
        sop_instance_uid=instance,
        transfer_syntax=ExplicitVRLittleEndian,
        sender=sender,
    )


@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34"])  # of odd and even length
@pytest.mark.parametrize("sender", ["SCANNER", "MR"])
def test_pydicom_reads_all_that_the_head_of_a_file_says(instance: str, sender: str) -> None:
    head = preamble(announced(instance, sender))

    meta = dcmread(BytesIO(head)).file_meta
    assert meta.FileMetaInformationGroupLength == len(head) - 144
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.MediaStorageSOPClassUID == MRImageStorage
    assert meta.MediaStorageSOPInstanceUID == instance
    assert meta.TransferSyntaxUID == UID(ExplicitVRLittleEndian)
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == sender
    assert [element.tag.element for element in meta] == [0, 1, 2, 3, 0x10, 0x12, 0x13, 0x16]


def test_what_is_named_by_no_uid_has_no_head() -> None:
    with pytest.raises(UnreadableInstanceError, match="not a UID"):
        preamble(announced("../../etc/passwd"))
