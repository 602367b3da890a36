"""What the web does with requests that are wrong, hostile, too many, or gone before they are answered."""

import http.client
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gpnet_node.log import configure
from tests.factories import enhanced_mr, mr_series
from tests.peers import wait_until
from tests.web import Web, ask, path_of, web_service


@pytest.mark.parametrize(
    "path",
    [
        "/studies/../../../etc/passwd",
        "/studies/..%2f..%2f..%2fetc%2fpasswd",
        "/studies/%2e%2e/%2e%2e/metadata",
        "/studies/1.2.3/../../node.sqlite",
        "/studies/1.2.3%00/metadata",
        "/studies/1.2.3%0d%0aX-Header:%20y/metadata",
        f"/studies/{'1' * 65}",
        f"/studies/{'1.' * 5000}1/series/1/instances/1",
        "/studies/1..2/metadata",
        "/studies/1.2.3/series/*/instances/1",
        "/studies/'%20OR%201=1--/series",
        "/studies/%D9%A1.2/metadata",
        "/studies//metadata",
        "/studies/1.2/series/1.3/instances/1.4/bulkdata/..%2f..%2fnode.sqlite",
        "/studies/1.2/series/1.3/instances/1.4/bulkdata/7FE00010/../../..",
        "/../health/../dicom-web/../node.sqlite",
    ],
)
def test_a_path_that_names_something_else_finds_nothing(tmp_path: Path, path: str) -> None:
    with web_service(tmp_path, *mr_series(tmp_path / "s", slices=1)) as web:
        answer = web.ask(path)

        assert answer.status in (400, 404)
        assert b"root:" not in answer.body
        assert b"SQLite" not in answer.body
        assert "X-Header" not in answer.headers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_405(tmp_path: Path, method: str) -> None:
    with web_service(tmp_path) as web:
        assert web.ask("/studies", method=method).status == 405


def test_a_head_without_end_is_refused_with_bounded_memory(tmp_path: Path) -> None:
    with web_service(tmp_path) as web, socket.create_connection(("127.0.0.1", web.port), timeout=30) as end:
        before = psutil.Process().memory_info().rss
        end.sendall(b"GET /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for _ in range(400):
                end.sendall(b"X-Endless: " + b"x" * 65_536 + b"\r\n")
            answered = end.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answered = b"HTTP/1.1 400"
        assert answered.startswith(b"HTTP/1.1 400")
        assert psutil.Process().memory_info().rss - before < 16 << 20
        assert ask(web.port, "/health").status == 200


@pytest.mark.parametrize(
    "query",
    [
        "PatientName=" + "*a" * 2000,
        "PatientName=" + "?*" * 2000,
        "PatientID=" + "%5C" * 3000,
        "StudyInstanceUID=" + ",".join(f"1.2.{n}" for n in range(5000)),
        "StudyDate=" + "-" * 1000,
        "includefield=" + ",".join(["all"] * 3000),
    ],
)
def test_a_query_that_is_a_bomb_is_answered_soon(tmp_path: Path, query: str) -> None:
    with web_service(tmp_path, *mr_series(tmp_path / "s", slices=2, PatientName="a" * 60)) as web:
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
        connection.request("GET", f"/dicom-web/studies?{query}")
        assert connection.getresponse().status in (200, 400)
        connection.close()


def test_a_thousand_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    paths = mr_series(tmp_path / "s", slices=4, rows=64, columns=64)
    kinds = [
        "/studies",
        "/instances",
        f"{path_of(paths[0], 'series')}/metadata",
        f"{path_of(paths[1])}/frames/1",
    ]
    kinds += [path_of(paths[2]), path_of(paths[0], "studies"), f"{path_of(paths[3])}/rendered", "/studies/x"]
    with web_service(tmp_path, *paths) as web:
        expected = {kind: len(web.ask(kind).body) for kind in kinds}
        before = psutil.Process().memory_info().rss
        ends = [_asking(web, kinds[n % len(kinds)]) for n in range(1000)]
        try:
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(_answered, ends))
        finally:
            for end in ends:
                end.close()

        right = [200 if kinds[n % len(kinds)] != "/studies/x" else 400 for n in range(1000)]
        assert [status for status, _ in answers] == right
        sizes = [expected[kinds[n % len(kinds)]] for n in range(1000)]
        assert [size for _, size in answers] == sizes
        assert psutil.Process().memory_info().rss - before < 200 << 20
        assert ask(web.port, "/health").status == 200


def _asking(web: Web, path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=120)
    connection.request("GET", f"/dicom-web{path}", headers={"Accept": "*/*"})
    return connection


def _answered(connection: http.client.HTTPConnection) -> tuple[int, int]:
    answer = connection.getresponse()
    return answer.status, len(answer.read())


def test_a_client_that_goes_away_in_the_middle_leaves_no_file_and_no_connection_open(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path / "s", slices=60, rows=512, columns=512)
    with web_service(tmp_path, path) as web:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", web.port)) as end:
                request = f"GET /dicom-web{path_of(path, 'studies')} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                end.sendall(request.encode())
                assert end.recv(1000).startswith(b"HTTP/1.1 200")
        process = psutil.Process()
        kept = str(web.archive.root / "instances")

        def files() -> list[str]:
            return [it.path for it in process.open_files() if it.path.startswith(kept)]

        def ends() -> list[str]:
            return [it.status for it in process.net_connections("tcp") if it.laddr.port == web.port]

        wait_until(lambda: files() == [], what="no file left open")
        wait_until(lambda: ends() == ["LISTEN"], what="no connection left open")
        assert ask(web.port, "/health").status == 200


def test_a_large_study_is_sent_with_memory_bounded_by_a_piece(tmp_path: Path) -> None:
    path = enhanced_mr(tmp_path / "s", slices=200, rows=512, columns=512)  # 100 MB
    with web_service(tmp_path, path) as web:
        web.ask("/studies")
        before = psutil.Process().memory_info().rss
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        connection.request("GET", f"/dicom-web{path_of(path, 'studies')}", headers={"Accept": "*/*"})
        answer = connection.getresponse()
        highest = total = 0
        while piece := answer.read(1 << 20):
            total += len(piece)
            highest = max(highest, psutil.Process().memory_info().rss)
        connection.close()

    assert total > path.stat().st_size
    assert highest - before < 40 << 20


def test_no_patient_data_reaches_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="json", level="debug", stream=sys.stderr)
    (path,) = mr_series(tmp_path / "s", slices=1, PatientID="Secret7", PatientName="Secret7^Name")
    with web_service(tmp_path, path) as web:
        web.ask("/studies?PatientID=Secret7&PatientName=Secret7*&limit=x")
        web.ask("/studies?PatientID=Secret7&StudyDate=Secret7")
        web.ask("/studies/Secret7/metadata")
        web.ask("/studies?Secret7=Secret7")
        web.archive.root.joinpath("instances").rename(web.archive.root / "gone")
        assert web.ask(f"{path_of(path)}/metadata").status == 503
        assert web.ask(path_of(path)).status == 503
        web.archive.root.joinpath("gone").rename(web.archive.root / "instances")

    logged = capsys.readouterr().err
    assert "Secret7" not in logged
    assert any(json.loads(line)["event"] == "a request could not be answered" for line in logged.splitlines())


def test_a_node_whose_database_is_gone_is_not_well_and_says_no_path(tmp_path: Path) -> None:
    with web_service(tmp_path) as web:
        web.engine.dispose()
        database = tmp_path / "node.sqlite"
        database.write_bytes(b"no database at all" * 100)
        for path in ("/health", "/dicom-web/studies"):
            answer = ask(web.port, path)
            assert answer.status == 503
            assert str(tmp_path).encode() not in answer.body
