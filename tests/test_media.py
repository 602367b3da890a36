"""What a request accepts, and in which form it is then given."""

import pytest
from fastapi import HTTPException, Request
from pydicom.uid import UID

from gpnet_node.web.media import accepted, first_of, frame_type, in_parts, instance_syntax

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
DICOM = 'multipart/related; type="application/dicom"'
OCTETS = "multipart/related; type=application/octet-stream"


def request(*accept: str, query: str = "") -> Request:
    headers = [(b"accept", text.encode()) for text in accept]
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


def test_quality_decides_and_zero_means_no() -> None:
    ranges = accepted(request("application/json;q=0.2, text/plain;q=0", "application/dicom+json"))

    assert [it.name for it in ranges] == ["application/dicom+json", "application/json"]
    assert first_of(ranges, ("application/json", "application/dicom+json")) == "application/dicom+json"


def test_commas_and_semicolons_in_quotes_part_nothing() -> None:
    (only,) = accepted(request('multipart/related; type="application/dicom"; x="a,b;c"; transfer-syntax=*'))

    assert (only.content, only.transfer_syntax) == ("application/dicom", "*")


def test_the_query_stands_in_for_the_header() -> None:
    ranges = accepted(request("text/html", query="accept=application/dicom"))

    assert [it.name for it in ranges] == ["application/dicom"]


@pytest.mark.parametrize("accept", ["", "*/*", "application/*"])
def test_who_says_little_gets_what_there_is(accept: str) -> None:
    assert (
        first_of(accepted(request(*[accept] if accept else [])), ("application/json",)) == "application/json"
    )


def test_a_media_type_that_is_not_offered_is_406() -> None:
    with pytest.raises(HTTPException) as raised:
        first_of(accepted(request("text/html")), ("application/json",))

    assert raised.value.status_code == 406


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        (DICOM, EXPLICIT, EXPLICIT),
        (DICOM, IMPLICIT, EXPLICIT),  # the standard's default, not whatever is stored
        (DICOM, JPEG_LS, EXPLICIT),
        (f"{DICOM}; transfer-syntax=*", JPEG_LS, JPEG_LS),
        (f"{DICOM}; transfer-syntax={JPEG_LS}", JPEG_LS, JPEG_LS),
        (f"{DICOM}; transfer-syntax={JPEG_2000}, {DICOM}; transfer-syntax={EXPLICIT}", JPEG_LS, EXPLICIT),
        ("application/dicom", IMPLICIT, EXPLICIT),
        ("*/*", JPEG_LS, JPEG_LS),
    ],
)
def test_an_instance_goes_as_stored_where_that_is_accepted_and_decoded_otherwise(
    accept: str, stored: str, given: str
) -> None:
    assert instance_syntax(accepted(request(accept)), UID(stored)) == given


@pytest.mark.parametrize("accept", [f"{DICOM}; transfer-syntax={JPEG_2000}", "text/html", OCTETS])
def test_an_instance_in_a_form_that_we_do_not_make_is_406(accept: str) -> None:
    with pytest.raises(HTTPException) as raised:
        instance_syntax(accepted(request(accept)), UID(JPEG_LS))

    assert raised.value.status_code == 406


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        (OCTETS, EXPLICIT, ("application/octet-stream", EXPLICIT)),
        (OCTETS, JPEG_LS, ("application/octet-stream", EXPLICIT)),
        (f"{OCTETS}; transfer-syntax=*", JPEG_LS, ("application/octet-stream", EXPLICIT)),
        (f"{OCTETS}; transfer-syntax={JPEG_LS}", JPEG_LS, ("application/octet-stream", JPEG_LS)),
        ("multipart/related; type=image/jls", JPEG_LS, ("image/jls", JPEG_LS)),
        (f"multipart/related; type=image/jls; transfer-syntax={JPEG_LS}", JPEG_LS, ("image/jls", JPEG_LS)),
        ('multipart/related; type="image/*"', JPEG_LS, ("image/jls", JPEG_LS)),
        ("*/*", JPEG_LS, ("image/jls", JPEG_LS)),
        ("*/*", IMPLICIT, ("application/octet-stream", EXPLICIT)),
        (f"multipart/related; type=image/jp2, {OCTETS}", JPEG_LS, ("application/octet-stream", EXPLICIT)),
    ],
)
def test_frames_go_as_stored_where_that_is_accepted_and_decoded_otherwise(
    accept: str, stored: str, given: tuple[str, str]
) -> None:
    assert frame_type(accepted(request(accept)), UID(stored)) == given


@pytest.mark.parametrize(
    "accept", ["multipart/related; type=image/jp2", f"{OCTETS}; transfer-syntax={JPEG_2000}"]
)
def test_frames_in_a_form_that_we_do_not_make_are_406(accept: str) -> None:
    with pytest.raises(HTTPException) as raised:
        frame_type(accepted(request(accept)), UID(JPEG_LS))

    assert raised.value.status_code == 406


@pytest.mark.parametrize(("accept", "parts"), [("application/dicom", False), (DICOM, True), ("*/*", True)])
def test_one_instance_comes_bare_to_who_asks_for_it_bare(accept: str, parts: bool) -> None:
    assert in_parts(accepted(request(accept)), "application/dicom") is parts


def test_an_endless_header_is_400() -> None:
    with pytest.raises(HTTPException) as raised:
        accepted(request("a/b," * 5000))

    assert raised.value.status_code == 400
