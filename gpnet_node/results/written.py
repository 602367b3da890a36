"""One written object, and whose it is."""

from dataclasses import dataclass

from pydicom import Dataset

from gpnet_node.result_profile import ObjectKind, ResultProfile, SegForm
from gpnet_node.results.header import encode


@dataclass(frozen=True, kw_only=True)
class WrittenObject:
    """One DICOM object as the bytes of its Part 10 file.

    ``name``: its file's, without ending; unlike ``kind``, no two objects of a result share it. ``form``: of
    the segmentation that it is, or that it refers to; None where it refers to none. ``picture``: a PNG that
    shows the same, kept beside it.
    """

    kind: ObjectKind
    name: str
    form: SegForm | None
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes
    picture: bytes | None = None

    def is_for(self, profile: ResultProfile) -> bool:
        """Whether a receiver of that profile gets it."""
        return self.kind in profile.objects and self.form in (None, profile.seg)


def written(
    kind: ObjectKind,
    dataset: Dataset,
    *,
    part: str = "",
    form: SegForm | None = None,
    picture: bytes | None = None,
) -> WrittenObject:
    """Encode a dataset. ``part``: what sets it apart from others of its kind."""
    return WrittenObject(
        kind=kind,
        name=kind + (form.name if form else "") + (f"-{part}" if part else ""),
        form=form,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=encode(dataset),
        picture=picture,
    )
