from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from gpnet_node.errors import ConfigurationError
from gpnet_node.toml_file import KeyPath, TomlFile, line_of


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = 1


def file_of(folder: Path, text: str) -> TomlFile:
    path = folder / "a.toml"
    path.write_text(text, encoding="utf-8")
    return TomlFile(path)


def test_text_inside_a_value_of_several_lines_is_no_key() -> None:
    assert line_of('a = """\nb = 1\n"""\nc = [\n  1,\n]\nb = 2\n', ("b",)) == 7


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("[a]\nb.c = 1\n", ("a", "b", "c"), 2),
        ('"x=y" = 1\n"# z" = 2\n', ("# z",), 2),
        ('a = "\u2028"\nb = 1\n', ("b",), 2),
        ('["p]q"] # r\nb = 1\n', ("p]q", "b"), 2),
        ("[[a]]\n[a.b]\n[[a]]\n[a.b]\nc = 1\n", ("a", 1, "b", "c"), 5),
    ],
)
def test_a_key_is_found_however_it_is_written(text: str, key: KeyPath, line: int) -> None:
    assert line_of(text, key) == line


def test_a_key_that_is_missing_is_told_at_the_table_around_it() -> None:
    assert line_of("a = 1\n[b]\nc = 1\n", ("b", "d")) == 2


def test_an_unknown_key_is_named_with_file_and_line_however_it_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        file_of(tmp_path, 'depth = 2\n"de=pth" = 3\n').validated(Section)

    assert str(raised.value) == f"{tmp_path}/a.toml, line 2: de=pth: unknown key"


def test_a_file_that_is_not_there_means_the_defaults(tmp_path: Path) -> None:
    assert TomlFile(tmp_path / "none.toml").validated(Section) == Section()


def test_bytes_that_are_no_text_are_the_operators_matter(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match=r"a\.toml: not readable as TOML"):
        TomlFile(tmp_path / "a.toml")
