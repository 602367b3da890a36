"""DICOMweb as clients use it: dicomweb-client against a whole node, and what the standard says besides."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from gpnet_node.model.card import read_card
from gpnet_node.parts import Role
from gpnet_node.store.states import JobState
from gpnet_node.web_config import WebConfig
from tests.factories import enhanced_mr, mr_series
from tests.nodes import configuration_of, running_node
from tests.pallida import draw_head, write_results
from tests.peers import storescu, wait_until
from tests.test_config import config_folder
from tests.web import OCTETS, Web, path_of, web_service

JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
EXPLICIT = "1.2.840.10008.1.2.1"
BACK = 'multipart/related; type="application/dicom"; transfer-syntax=*'


# -- a whole node --------------------------------------------------------------------------------------------


def test_dicomweb_client_finds_and_fetches_source_and_segmentation_of_a_node_that_made_it(
    tmp_path: Path,
) -> None:
    head = draw_head(tmp_path / "series", shape=(20, 45, 60))
    settings = configuration_of(tmp_path, web=WebConfig(enabled=True, port=0))
    with running_node(settings) as node:
        assert storescu(node.port, head.paths).returncode == 0
        job = node.job(JobState.WRITTEN)
        client = Web(
            port=node.web_port, archive=node.parts.archive, index=node.parts.index, engine=node.parts.engine
        ).client()

        (study,) = client.search_for_studies(search_filters={"PatientID": "P1"})
        uid = study["0020000D"]["Value"][0]
        assert sorted(study["00080061"]["Value"]) == ["MR", "SEG", "SR"]
        by_modality = {it["00080060"]["Value"][0]: it for it in client.search_for_series(uid)}
        assert by_modality["MR"]["00201209"]["Value"] == [20]
        (found,) = client.search_for_instances(uid, by_modality["SEG"]["0020000E"]["Value"][0])
        names = (uid, found["0020000E"]["Value"][0], found["00080018"]["Value"][0])

        written = {it.kind: node.parts.archive.root / it.path for it in node.parts.jobs.results(job.uid)}
        seg = dcmread(written["seg"])
        assert client.retrieve_instance(*names) == seg
        assert (
            Dataset.from_json(client.retrieve_instance_metadata(*names)).SegmentSequence
            == seg.SegmentSequence
        )
        frames = client.retrieve_instance_frames(*names, list(range(1, seg.NumberOfFrames + 1)))
        bits = [np.unpackbits(np.frombuffer(it, np.uint8), count=45 * 60, bitorder="little") for it in frames]
        assert np.array_equal(np.reshape(bits, (-1, 45, 60)), seg.pixel_array)
        assert len(client.retrieve_study(uid)) == len(head.paths) + 2


def test_the_web_role_is_a_process_of_its_own_that_drains_and_is_started_again(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "s", slices=3)
    settings = configuration_of(tmp_path, web=WebConfig(enabled=True, port=0, may_store=True))
    with running_node(settings, Role.RECEIVER, Role.WEB) as node:
        web = Web(
            port=node.web_port, archive=node.parts.archive, index=node.parts.index, engine=node.parts.engine
        )
        web.client().store_instances([dcmread(path) for path in paths])
        series = dcmread(paths[0]).SeriesInstanceUID
        decided = lambda: node.parts.index.series(series).state == "complete"  # noqa: E731
        wait_until(decided, what="the series that came by STOW-RS being complete")
        assert len(node.parts.jobs.newest()) == 1
        assert node.supervisor.process_id(Role.WEB) != node.supervisor.process_id(Role.RECEIVER)
        assert node.supervisor.stop()


def test_a_node_that_does_not_enable_the_web_does_not_play_it(tmp_path: Path) -> None:
    with running_node(configuration_of(tmp_path)) as node:
        assert node.web_port == 0


def test_the_web_role_by_itself_needs_to_be_enabled(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpnet_node", "serve", "--role", "web", "--config", str(tmp_path)]
    config_folder(tmp_path)

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 78
    assert "set enabled = true under [web]" in ended.stderr


# -- searching -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Two patients: one with two series, one with an enhanced image; for tests that only ask."""
    tmp_path = tmp_path_factory.mktemp("web")
    one = mr_series(tmp_path / "a", slices=4)
    two = mr_series(tmp_path / "b", slices=2, series="2", SeriesDescription="t1_mpr", SeriesNumber=9)
    other = enhanced_mr(
        tmp_path / "c",
        slices=3,
        series="3",
        StudyInstanceUID="1.2.3.4",
        PatientID="P2",
        PatientName="Müller^Jürgen",
        StudyDate="20200229",
    )
    with web_service(tmp_path, *one, *two, other) as running:
        yield running


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 2),
        ("?PatientID=P2", 1),
        ("?00100020=P2", 1),
        ("?PatientName=m%C3%BCller*", 1),
        ("?PatientName=example+person&fuzzymatching=true", 1),
        ("?PatientName=*e*&PatientID=P1", 1),
        ("?StudyDate=20200101-20201231", 1),
        ("?StudyDate=-20191231", 0),
        ("?StudyInstanceUID=1.2.3.4,1.2.3.5", 1),
        ("?StudyInstanceUID=1.2.3.4&StudyInstanceUID=1.2.3.5", 1),
        ("?ModalitiesInStudy=MR", 2),
        ("?ModalitiesInStudy=CT", 0),
        ("?limit=1", 1),
        ("?limit=0", 0),
        ("?limit=5&offset=1", 1),
        ("?offset=2", 0),
    ],
)
def test_studies_are_found_by_what_the_query_says(web: Web, query: str, found: int) -> None:
    answer = web.ask(f"/studies{query}", accept="application/dicom+json")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    assert len(answer.json) == found


def test_pages_make_up_the_whole_and_none_comes_twice(web: Web) -> None:
    pages = [web.ask(f"/instances?limit=3&offset={offset}").json for offset in (0, 3, 6)]

    uids = [it["00080018"]["Value"][0] for page in pages for it in page]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert len(set(uids)) == 7


@pytest.mark.parametrize(
    ("path", "found", "has", "lacks"),
    [
        ("/series", 3, ("00100010", "0020000D", "00201206"), ("00080018",)),
        ("/instances", 7, ("00100010", "0008103E", "00280010"), ()),
        ("/studies/1.2.3.4/series", 1, ("0020000D", "0008103E", "00201209"), ("00100010",)),
        ("/studies/1.2.3.4/instances", 1, ("0008103E", "00280008"), ("00100010",)),
    ],
)
def test_what_the_path_leaves_open_is_answered_too(
    web: Web, path: str, found: int, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    answers = web.ask(path).json

    assert len(answers) == found
    assert set(has) <= set(answers[0])
    assert not set(lacks) & set(answers[0])


def test_an_answer_has_what_the_standard_lists_and_what_was_asked_for_besides(web: Web) -> None:
    (study,) = web.ask("/studies?PatientID=P1&includefield=StudyDescription,00081030").json
    (series,) = web.ask("/series?SeriesNumber=9&includefield=all").json

    listed = (
        "00080020 00080030 00080050 00080056 00080061 00080090 00081190 00100010 00100020 00100030 00100040"
    )
    assert set(f"{listed} 0020000D 00200010 00201206 00201208 00081030".split()) <= set(study)
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [6])
    assert {"00180015", "00080070", "00100010", "0008103E", "00080021"} <= set(series)
    uid = study["0020000D"]["Value"][0]
    assert study["00081190"]["Value"] == [f"{web.url}/studies/{uid}"]


def test_a_name_of_any_script_arrives_whole(web: Web) -> None:
    (study,) = web.ask("/studies?PatientID=P2").json

    assert study["00100010"]["Value"] == [{"Alphabetic": "Müller^Jürgen"}]


def test_what_cannot_be_matched_by_is_named_in_a_warning(web: Web) -> None:
    answer = web.ask("/studies?EchoTime=60&PatientID=P1")

    assert len(answer.json) == 1
    assert answer.headers["Warning"].startswith("299 ")
    assert "EchoTime" in answer.headers["Warning"]


@pytest.mark.parametrize(
    "query",
    [
        "?limit=-1",
        "?limit=many",
        "?offset=1.5",
        "?fuzzymatching=perhaps",
        "?NoSuchAttribute=1",
        "?includefield=NoSuchAttribute",
        "?StudyDate=yesterday",
        "?StudyDate=20200101-20200102-20200103",
        "?PatientID=a&PatientID=b",
        "?0020000D=1.2&StudyInstanceUID=1.3",
        "?" + "&".join(f"PatientID={n}" for n in range(200)),
        "?00280010=tall",
    ],
)
def test_a_query_that_cannot_be_understood_is_400_and_not_repeated(web: Web, query: str) -> None:
    answer = web.ask(f"/instances{query}" if "0028" in query else f"/studies{query}")

    assert answer.status == 400
    assert b"yesterday" not in answer.body


# -- retrieving ----------------------------------------------------------------------------------------------


def test_an_instance_comes_with_the_bytes_that_were_sent(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1, rows=64, columns=64, transfer_syntax=JPEG_LS)
    with web_service(tmp_path, path) as web:
        ((content_type, content),) = web.ask(path_of(path), accept=BACK).parts()
        bare = web.ask(path_of(path), accept=f"application/dicom; transfer-syntax={JPEG_LS}")

    assert content_type == f"application/dicom; transfer-syntax={JPEG_LS}"
    assert content == path.read_bytes()
    assert bare.body == content
    assert bare.headers["Content-Type"] == "application/dicom"


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.5",
        JPEG_LS,
        JPEG_2000,
    ],
)
def test_who_names_no_transfer_syntax_gets_explicit_little_endian_with_the_same_values(
    tmp_path: Path, syntax: str
) -> None:
    path = enhanced_mr(tmp_path / "s", slices=3, rows=40, columns=45, transfer_syntax=syntax)
    with web_service(tmp_path, path) as web:
        ((content_type, content),) = web.ask(path_of(path), accept=BACK.replace("*", EXPLICIT)).parts()

    sent, got = dcmread(path), dcmread(io.BytesIO(content))
    assert content_type.endswith(EXPLICIT)
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(got.pixel_array, sent.pixel_array)
    for data_set in (sent, got):
        del data_set.PixelData
    assert got == sent


def test_nine_real_transfer_syntaxes_come_decoded_to_one_image(tmp_path: Path, shared_data: Path) -> None:
    for number, path in enumerate(sorted((shared_data / "dicom" / "dcm_qa_ts").rglob("*.dcm"))):
        with web_service(tmp_path / str(number), path) as web:
            ((_, content),) = web.ask(
                path_of(path), accept='multipart/related; type="application/dicom"'
            ).parts()
        assert np.array_equal(dcmread(io.BytesIO(content)).pixel_array, dcmread(path).pixel_array)


def test_a_damaged_instance_goes_as_it_is_and_the_others_of_its_series_go_decoded(tmp_path: Path) -> None:
    good, bad = mr_series(tmp_path / "s", slices=2, rows=64, columns=64, transfer_syntax=JPEG_2000)
    content = bad.read_bytes().replace(
        b"\xff\x4f\xff\x51", b"\xff\x4f\xaa\xaa"
    )  # start and size (ISO 15444-1)
    bad.write_bytes(content)
    with web_service(tmp_path, good, bad) as web:
        parts = web.ask(path_of(good, "series"), accept='multipart/related; type="application/dicom"').parts()
        alone = web.ask(path_of(bad), accept='multipart/related; type="application/dicom"')

    assert [content_type.rpartition("=")[2] for content_type, _ in parts] == [EXPLICIT, JPEG_2000]
    assert parts[1][1] == content
    assert alone.status == 406


def test_metadata_is_the_header_and_names_the_pixels_by_their_address(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "s", slices=3)
    with web_service(tmp_path, *paths) as web:
        metadata = web.ask(path_of(paths[0], "series") + "/metadata", accept="application/dicom+json").json
        address = metadata[1]["7FE00010"]["BulkDataURI"]
        (pixels,) = web.client().retrieve_bulkdata(address)
        bare = web.ask(address.partition("/dicom-web")[2], accept="application/octet-stream")

    assert pixels == bare.body == dcmread(paths[1]).PixelData
    for model, path in zip(metadata, paths, strict=True):
        sent = dcmread(path, stop_before_pixels=True)
        model.pop("7FE00010")
        assert Dataset.from_json(model) == sent


def test_frames_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path / "s", slices=5)
    values = dcmread(path).pixel_array
    with web_service(tmp_path, path) as web:
        parts = web.ask(f"{path_of(path)}/frames/5,1,3", accept=OCTETS).parts()
        bare = web.ask(f"{path_of(path)}/frames/2", accept="application/octet-stream")

    assert [content for _, content in parts] == [values[index].tobytes() for index in (4, 0, 2)]
    assert {content_type for content_type, _ in parts} == {
        f"application/octet-stream; transfer-syntax={EXPLICIT}"
    }
    assert bare.body == values[1].tobytes()


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("6", 404),
        ("0", 404),
        ("1,6", 404),
        ("-1", 400),
        ("1,,2", 400),
        ("x", 400),
        ("9" * 30, 404),
        ("%D9%A1", 400),
    ],
)
def test_a_frame_that_is_not_there_is_404_and_what_is_no_number_400(
    tmp_path: Path, frames: str, status: int
) -> None:
    path = enhanced_mr(tmp_path / "s", slices=5)
    with web_service(tmp_path, path) as web:
        assert web.ask(f"{path_of(path)}/frames/{frames}").status == status


def test_others_segmentations_come_frame_by_frame_through_dicomweb_client(
    tmp_path: Path, shared_data: Path
) -> None:
    path = shared_data / "dicom" / "dcmqi" / "sr-example" / "seg.dcm"
    if not path.exists():
        (path,) = list((shared_data / "dicom" / "dcmqi").rglob("liver.dcm"))
    sent = dcmread(path)
    names = (sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID)
    with web_service(tmp_path, path) as web:
        (frame,) = web.client().retrieve_instance_frames(*names, [2])

    bits = np.unpackbits(np.frombuffer(frame, np.uint8), count=sent.Rows * sent.Columns, bitorder="little")
    assert np.array_equal(bits, sent.pixel_array[1].ravel())


def test_what_is_not_there_is_404(web: Web) -> None:
    for path in (
        "/studies/1.2.9",
        "/studies/1.2.9/metadata",
        "/studies/1.2.3.4/series/1.2/instances/1/frames/1",
    ):
        assert web.ask(path).status == 404


def test_an_instance_is_found_only_in_its_own_series_and_study(tmp_path: Path) -> None:
    (path,) = mr_series(tmp_path / "s", slices=1)
    with web_service(tmp_path, path) as web:
        right = path_of(path)
        assert web.ask(right).status == 200
        assert web.ask(right.replace(right.split("/")[2], "1.2.3")).status == 404
        assert web.ask(right.replace(right.split("/")[4], "1.2.3")).status == 404


def test_a_nested_long_value_is_fetched_by_its_address(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path / "s", slices=2)
    data_set = dcmread(path)
    item = Dataset()
    item.ICCProfile = bytes(range(256)) * 8
    data_set.OpticalPathSequence = [Dataset(), item]
    data_set.save_as(path)
    with web_service(tmp_path, path) as web:
        (model,) = web.ask(path_of(path) + "/metadata").json
        address = model["00480105"]["Value"][1]["00282000"]["BulkDataURI"].partition("/dicom-web")[2]
        answer = web.ask(address, accept="application/octet-stream")
        wrong = [
            web.ask(address.replace("00480105.2", other)).status
            for other in ("00480105.9", "00480106.2", "x")
        ]

    assert answer.body == item.ICCProfile
    assert wrong == [404, 404, 400]


def test_pictures_come_as_png_or_jpeg_and_show_the_window_asked_for(tmp_path: Path) -> None:
    voxels = np.tile(np.linspace(0, 1000, 64, dtype=np.uint16), (1, 32, 1))
    (path,) = mr_series(tmp_path / "s", voxels=voxels, WindowCenter=500, WindowWidth=1000)
    with web_service(tmp_path, path) as web:
        one = f"{path_of(path)}/rendered"
        whole = web.ask(one, accept="image/png")
        narrow = web.ask(f"{one}?window=250,100,linear", accept="image/png")
        small = web.ask(f"{path_of(path)}/frames/1/rendered?viewport=32,32&quality=50", accept="image/jpeg")
        wrong = [
            web.ask(f"{one}?{query}").status
            for query in ("window=1", "window=1,0", "viewport=0,9", "quality=x")
        ]
        other = web.ask(one, accept="video/mp4").status

    grey, steep = (np.asarray(Image.open(io.BytesIO(it.body)))[0].astype(int) for it in (whole, narrow))
    assert np.abs(grey - np.linspace(0, 255, 64)).max() <= 2
    assert (steep[12], steep[20]) == (0, 255)
    assert Image.open(io.BytesIO(small.body)).size == (32, 16)
    assert (small.headers["Content-Type"], other) == ("image/jpeg", 406)
    assert wrong == [400] * 4


def test_a_segmentations_frame_is_a_picture_too(tmp_path: Path, model_folder: Path) -> None:
    head = draw_head(tmp_path / "head", shape=(20, 45, 50))
    path = tmp_path / "seg.dcm"
    path.write_bytes(write_results(head, read_card(model_folder)).seg.content)
    frames = dcmread(path).pixel_array
    number = next(index for index, frame in enumerate(frames) if frame.any())
    with web_service(tmp_path, path) as web:
        answer = web.ask(f"{path_of(path)}/frames/{number + 1}/rendered", accept="image/png")

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))) > 127, frames[number] > 0)
