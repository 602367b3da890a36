import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from gpnet_node.config import (
    SHIPPED_MODEL,
    Configuration,
    NodeConfig,
    PeerConfig,
    RouteConfig,
    defaults,
    load,
)
from gpnet_node.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[1]
PACS = '[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "localhost"\nport = 104\n'


def config_folder(folder: Path, *, node: str = "", peers: str = PACS, routes: str | None = None) -> Path:
    """Write the three files, with a model that exists beside them."""
    model = folder / "models" / SHIPPED_MODEL
    model.mkdir(parents=True)
    (model / "card.toml").touch()
    (folder / "node.toml").write_text(f'archive = "archive"\nmodel_weights = "models"\n{node}')
    (folder / "peers.toml").write_text(peers)
    if routes is not None:
        (folder / "routes.toml").write_text(routes)
    return folder


def fault(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(folder)
    return str(raised.value)


def test_missing_keys_and_files_mean_the_defaults(tmp_path: Path) -> None:
    configuration = load(config_folder(tmp_path))

    assert configuration.node.ae_title == "GPNET"
    assert [route.name for route in configuration.routes] == ["gpnet"]
    assert configuration.routes[0].eligible.field_strength_tesla == (6.5, 8.0)


def test_the_shipped_examples_load_and_show_the_defaults(tmp_path: Path) -> None:
    shipped = load(REPOSITORY / "ae_config")
    embedded = defaults(REPOSITORY / "archive", peers=shipped.peers, destinations=["pacs"])

    assert shipped == embedded


def test_a_peers_profile_says_which_objects_it_gets_and_how_its_segmentation_is_written(
    tmp_path: Path,
) -> None:
    wanted = 'objects = ["seg", "rtstruct"]\n[peer.seg]\nlabelmap = true\nempty_frames = false\n'
    profile = (
        load(config_folder(tmp_path, peers=PACS.replace("localhost", "127.0.0.1") + wanted)).peers[0].profile
    )

    assert profile.objects == ("seg", "rtstruct")
    assert profile.seg.name == "-labelmap-nonempty"


def test_a_route_writes_what_it_keeps_and_what_each_destination_wants(tmp_path: Path) -> None:
    peers = PACS + 'objects = ["stl", "refusal"]\n'
    routes = (
        f'[[route]]\nname = "r"\nmodel = "{SHIPPED_MODEL}"\ndestinations = ["pacs"]\n'
        '[route.kept]\nobjects = ["seg", "sr", "rtstruct"]\n'
    )
    configuration = load(config_folder(tmp_path, peers=peers, routes=routes))

    kept, pacs = configuration.profiles(configuration.routes[0])
    assert kept.objects == ("seg", "sr", "rtstruct")
    assert pacs.objects == ("stl", "refusal")
    assert configuration.told_of_refusals() == ("pacs",)


def test_an_object_that_does_not_exist_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "peers.toml, line 6" in fault(config_folder(tmp_path, peers=PACS + 'objects = ["sgm"]\n'))


def test_relative_paths_count_from_the_folder_of_the_file_and_the_database_from_the_archive(
    tmp_path: Path,
) -> None:
    node = load(config_folder(tmp_path)).node

    assert node.archive == tmp_path / "archive"
    assert node.database == tmp_path / "archive" / "node.sqlite"
    assert node.model_weights == tmp_path / "models"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            'keep_days = 90\nfound_at = ["archive"]\n',
            "line 5: retention.found_at: there is no peer 'archive'",
        ),
        ('found_at = ["pacs"]\n', "line 3: retention: found_at needs keep_days"),
        ("keep_days = 0\n", "line 4: retention.keep_days: "),
    ],
)
def test_a_retention_that_cannot_be_meant_is_told_with_its_line(
    tmp_path: Path, section: str, told: str
) -> None:
    assert told in fault(config_folder(tmp_path, node=f"[retention]\n{section}"))


def test_an_absolute_database_path_is_left_as_it_is(tmp_path: Path) -> None:
    assert load(config_folder(tmp_path, node='database = "/var/x.sqlite"')).node.database == Path(
        "/var/x.sqlite"
    )


def test_an_unknown_key_is_named_with_file_and_line(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, node="# a comment\nprot = 104\n"))

    assert text == f"{tmp_path}/node.toml, line 4: prot: unknown key"


def test_a_bad_value_is_named_with_file_and_line(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, node="[retry]\nfactor = 0.5\n"))

    assert text.startswith(f"{tmp_path}/node.toml, line 4: retry.factor: ")


def test_a_number_in_quotes_is_not_a_number(tmp_path: Path) -> None:
    assert "line 3: port: " in fault(config_folder(tmp_path, node='port = "104"\n'))


def test_broken_toml_is_named_with_file_and_line(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, node="port =\n"))

    assert f"{tmp_path}/node.toml" in text
    assert "line 3" in text


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, node="prot = 1\nport = -1\n"))

    assert [line.split(": ")[1] for line in text.splitlines()] == ["port", "prot"]


def test_a_key_in_the_second_of_two_tables_is_named_with_its_own_line(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, peers=PACS + PACS.replace("104", "0").replace('"pacs"', '"b"')))

    assert text.startswith(f"{tmp_path}/peers.toml, line 10: peer.2.port: ")


def test_a_key_deep_in_nested_tables_is_named_with_its_own_line(tmp_path: Path) -> None:
    rule = '[[route.eligible.contrast]]\nname = "a"\n'
    routes = f'[[route]]\nname = "r"\nmodel = "{SHIPPED_MODEL}"\n{rule}{rule}echo_time_ms = [90, 30]\n'

    text = fault(config_folder(tmp_path, routes=routes))

    assert text == (
        f"{tmp_path}/routes.toml, line 8: route.1.eligible.contrast.2.echo_time_ms: "
        "the lower bound 90 is above the upper bound 30"
    )


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("destinations", '["nowhere"]', "there is no peer 'nowhere'"),
        ("destinations", '["scanner"]', "peer 'scanner' has no host and port"),
        ("model", '"gpnet-9"', "no model 'gpnet-9'"),
    ],
)
def test_a_name_that_nothing_bears_is_named_with_file_and_line(
    tmp_path: Path, key: str, value: str, named: str
) -> None:
    peers = PACS + '[[peer]]\nname = "scanner"\nae_title = "MR"\n'
    rest = {"model": f'"{SHIPPED_MODEL}"', "destinations": '["pacs"]', key: value}
    routes = '[[route]]\nname = "r"\n' + "".join(f"{k} = {v}\n" for k, v in rest.items())

    text = fault(config_folder(tmp_path, peers=peers, routes=routes))

    assert f"{tmp_path}/routes.toml, line {3 + list(rest).index(key)}: route.1.{key}: " in text
    assert named in text


def test_an_address_that_a_peer_may_call_from_is_an_ip_address(tmp_path: Path) -> None:
    folder = config_folder(tmp_path, peers=PACS + 'hosts = ["192.0.2.7", "2001:DB8::1"]\n')
    peer = load(folder).peer("pacs")
    (folder / "peers.toml").write_text(PACS + 'hosts = ["192.0.2.7", "scanner.example"]\n')
    text = fault(folder)

    assert text == (
        f"{tmp_path}/peers.toml, line 6: peer.1.hosts: 'scanner.example' is not an IP address; "
        "names are not looked up"
    )
    assert peer.hosts == ("192.0.2.7", "2001:db8::1")


def test_a_name_used_twice_is_named(tmp_path: Path) -> None:
    text = fault(config_folder(tmp_path, peers=PACS + PACS))

    assert text == f"{tmp_path}/peers.toml, line 7: peer.2.name: 'pacs' is taken by peer 1"


def test_two_senders_of_one_ae_title_are_refused_since_their_rights_would_be_ambiguous(
    tmp_path: Path,
) -> None:
    peer = '[[peer]]\nname = "{}"\nae_title = "MR"\nmay_store = true\n'

    text = fault(config_folder(tmp_path, peers=peer.format("a") + peer.format("b")))

    assert "line 7: peer.2.ae_title" in text


def test_a_peer_with_a_host_but_no_port_is_refused() -> None:
    with pytest.raises(ValidationError, match="host and port belong together"):
        PeerConfig(name="a", ae_title="A", host="localhost")


@pytest.mark.parametrize("title", ["", " ", "A" * 17, "A\\B", "A\n", " A", "Ä"])
def test_what_cannot_be_an_ae_title_is_refused(title: str) -> None:
    with pytest.raises(ValidationError):
        PeerConfig(name="a", ae_title=title)


@pytest.mark.parametrize("title", ["A", "MR SCANNER 7T", "A" * 16])
def test_an_ae_title_may_hold_spaces_and_sixteen_characters(title: str) -> None:
    assert PeerConfig(name="a", ae_title=title).ae_title == title


def test_a_pattern_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    routes = (
        f'[[route]]\nname = "r"\nmodel = "{SHIPPED_MODEL}"\n'
        '[[route.eligible.contrast]]\nname = "a"\ndescription_pattern = "("\n'
    )

    assert "line 6: route.1.eligible.contrast.1.description_pattern" in fault(
        config_folder(tmp_path, routes=routes)
    )


@pytest.mark.parametrize("name", ["Europe/Nowhere", "Europe", "../UTC", "/etc/localtime", ""])
def test_a_time_zone_that_is_none_is_named_with_file_and_line(tmp_path: Path, name: str) -> None:
    text = fault(config_folder(tmp_path, node=f'time_zone = "{name}"\n'))

    assert "line 3: time_zone: " in text
    assert "Europe/Amsterdam" in text


def test_a_moment_is_told_in_the_configured_time_zone_and_its_summer_time(tmp_path: Path) -> None:
    node = NodeConfig(archive=tmp_path, time_zone="Europe/Amsterdam")
    winter, summer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)

    assert node.local(winter).isoformat() == "2026-01-01T01:00:00+01:00"
    assert node.local(summer).isoformat() == "2026-07-01T02:00:00+02:00"


def test_without_a_configured_time_zone_a_moment_is_told_in_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()

    told = NodeConfig(archive=tmp_path).local(datetime(2026, 1, 1, tzinfo=UTC))

    monkeypatch.undo()
    time.tzset()
    assert told.isoformat() == "2026-01-01T09:00:00+09:00"


def test_a_configuration_cannot_be_changed_after_loading(tmp_path: Path) -> None:
    node = NodeConfig(archive=tmp_path)

    with pytest.raises(ValidationError):
        node.port = 104


def test_a_sender_is_found_by_its_calling_ae_title_and_only_with_the_right_to_store(tmp_path: Path) -> None:
    scanner = PeerConfig(name="mr", ae_title="MR", may_store=True)
    pacs = PeerConfig(name="pacs", ae_title="PACS", host="localhost", port=104)
    configuration = Configuration(node=NodeConfig(archive=tmp_path), peers=(pacs, scanner))

    assert configuration.caller("MR ") == scanner
    assert configuration.caller("PACS") is None


def test_asking_for_a_peer_or_route_that_is_not_there_says_so(tmp_path: Path) -> None:
    configuration = defaults(tmp_path)

    with pytest.raises(ConfigurationError, match="no peer 'x'"):
        configuration.peer("x")
    with pytest.raises(ConfigurationError, match="no route 'x'"):
        configuration.route("x")
    assert isinstance(configuration.route("gpnet"), RouteConfig)
