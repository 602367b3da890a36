from pathlib import Path

import pytest
import tomlkit

from gpnet_node.errors import ConfigurationError
from gpnet_node.model.card import ReviewLimits, read_card


def test_the_four_structures_stand_in_the_order_of_the_segments(model_folder: Path) -> None:
    card = read_card(model_folder)

    assert [(s.number, s.name) for s in card.structures] == [
        (1, "GPe left"),
        (2, "GPi left"),
        (3, "GPe right"),
        (4, "GPi right"),
    ]


def test_structures_are_coded_in_uberon_with_the_side_as_a_modifier(model_folder: Path) -> None:
    for structure in read_card(model_folder).structures:
        expected = "UBERON:0002476" if structure.name.startswith("GPe") else "UBERON:0002477"
        assert (structure.type.scheme, structure.type.value) == ("UBERON", expected)
        assert structure.laterality.value == {"left": "7771000", "right": "24028007"}[structure.side]


def test_people_of_the_figures_were_not_trained_on(model_folder: Path) -> None:
    training = read_card(model_folder).training

    assert isinstance(training["train_people"], list)
    assert isinstance(training["test_people"], list)
    assert not set(training["train_people"]) & set(training["test_people"])


def test_where_there_is_no_model_the_key_that_names_its_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_card(tmp_path / "model_weights" / "absent")

    text = str(caught.value)
    assert str(tmp_path / "model_weights" / "absent" / "card.toml") in text
    assert "model_weights in node.toml" in text
    assert "Errno" not in text


def test_a_wrong_card_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('name = "x"\n', encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"card.toml[\s\S]*weights_sha256"):
        read_card(tmp_path)


def with_table(model_folder: Path, tmp_path: Path, name: str, table: dict[str, object]) -> Path:
    """A folder whose card has another table of that name."""
    card = tomlkit.parse((model_folder / "card.toml").read_text(encoding="utf-8"))
    card[name] = table
    (tmp_path / "card.toml").write_text(tomlkit.dumps(card), encoding="utf-8")
    return tmp_path


def test_the_limits_of_a_review_have_defaults_that_the_card_may_change(
    model_folder: Path, tmp_path: Path
) -> None:
    review = read_card(with_table(model_folder, tmp_path, "review", {"lesion_mm3": 12.0})).review

    assert review == ReviewLimits(lesion_mm3=12.0)
    assert review.edge_mm == 3.0


def test_a_regression_with_a_coefficient_too_few_is_refused_with_its_file(
    model_folder: Path, tmp_path: Path
) -> None:
    table = {"features": ["entropy"], "coefficients": [], "intercept": 0.0, "threshold": 0.7}

    with pytest.raises(ConfigurationError, match="1 features, 0 coefficients") as caught:
        read_card(with_table(model_folder, tmp_path, "quality", table))

    assert str(tmp_path / "card.toml") in str(caught.value)
