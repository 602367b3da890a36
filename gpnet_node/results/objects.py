"""Writes what the receivers of one result want: each kind of object once, each form of segmentation once."""

from collections.abc import Iterator, Sequence

from gpnet_node.errors import InputError
from gpnet_node.result_profile import ResultProfile
from gpnet_node.results.burned_in import write_burned_in
from gpnet_node.results.capture import write_capture, write_pdf
from gpnet_node.results.content import Content
from gpnet_node.results.page.picture import compose
from gpnet_node.results.rejection import write_rejection
from gpnet_node.results.report import write_report
from gpnet_node.results.rtstruct import write_rtstruct
from gpnet_node.results.seg import write_seg
from gpnet_node.results.surface import write_surfaces
from gpnet_node.results.written import WrittenObject, written


def write_objects(
    content: Content, profiles: Sequence[ResultProfile]
) -> tuple[tuple[WrittenObject, ...], tuple[str, ...]]:
    """Every object that any of the profiles holds, in a fixed order; a report brings its segmentation along.

    The sentences say what could not be made of this series, and why; they hold nothing else up. Raises as the
    writers do.
    """
    objects = list(_written(content, profiles))
    if not any("mr" in profile.objects for profile in profiles):
        return tuple(objects), ()
    try:
        return (*objects, *_burned_in(content)), ()
    except InputError as exc:
        return tuple(objects), (f"left out the images with contours: {exc}",)


def _burned_in(content: Content) -> list[WrittenObject]:
    images = write_burned_in(content.volume, content.labels, content.card, content.job)
    return [written("mr", image, part=f"{image.InstanceNumber:03d}") for image in images]


def _written(content: Content, profiles: Sequence[ResultProfile]) -> Iterator[WrittenObject]:
    wanted = {kind for profile in profiles for kind in profile.objects}
    for form in dict.fromkeys(p.seg for p in profiles if {"seg", "sr"} & set(p.objects)):
        seg = write_seg(content.volume, content.labels, content.card, content.job, form)
        yield written("seg", seg, form=form)
        if any("sr" in profile.objects for profile in profiles if profile.seg == form):
            yield written("sr", write_report(content, seg), form=form)
    basis = (content.volume, content.labels, content.card, content.job)
    if "rtstruct" in wanted:
        yield written("rtstruct", write_rtstruct(*basis))
    if "stl" in wanted:
        for surface in write_surfaces(*basis):
            yield written("stl", surface, part=str(surface.InstanceNumber))
    if {"capture", "pdf"} & wanted:
        page = compose(content)
        if "capture" in wanted:
            yield written("capture", write_capture(page, *basis), picture=page.png())
        if "pdf" in wanted:
            yield written("pdf", write_pdf(page, *basis))
    if "rejection" in wanted and content.background.replaces:
        yield written("rejection", write_rejection(content))
