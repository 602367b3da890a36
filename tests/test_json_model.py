"""The DICOM JSON model: read back by pydicom, over real data sets."""

import json
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.sequence import Sequence
from pydicom.valuerep import PersonName

from gpnet_node.web.json_model import as_json

REAL = (
    "dcm_qa_xa60_7T_TerraX/**/*",
    "niivue_t1_mpr_tra/**/*",
    "dcm_qa_xa30/**/*.dcm",
    "highdicom/**/*.dcm",
    "dcmqi/**/*.dcm",
    "dcm_qa_ts/**/*.dcm",
)


def model_of(data_set: Dataset) -> dict[str, dict[str, object]]:
    """The model as it arrives: through JSON that has no NaN."""
    model: dict[str, dict[str, object]] = json.loads(
        json.dumps(as_json(data_set, lambda path: f"uri/{path}"), allow_nan=False)
    )
    return model


@pytest.mark.parametrize("pattern", REAL)
def test_real_data_sets_come_back_as_they_were(shared_data: Path, pattern: str) -> None:
    files = sorted(path for path in (shared_data / "dicom").glob(pattern) if path.is_file())
    read = 0
    for path in files[:: max(1, len(files) // 8)]:
        if path.read_bytes()[128:132] != b"DICM":
            continue
        data_set = dcmread(path, stop_before_pixels=True)
        back = Dataset.from_json(model_of(data_set), lambda tag, vr, uri: b"by its address")
        assert set(back.keys()) == {tag for tag in data_set.keys() if tag.element}  # noqa: SIM118
        for element in (it for it in data_set if it.tag.element):  # group lengths are left out
            _same(element, back[element.tag])
            read += 1
    assert read > 50


def _same(one: DataElement, other: DataElement) -> None:
    """Equal as values: texts without padding, numbers as numbers, short bytes as bytes."""
    if one.VR == "SQ":
        assert len(one.value) == len(other.value)
        for first, second in zip(one.value, other.value, strict=True):
            for element in (it for it in first if it.tag.element):
                _same(element, second[element.tag])
    elif isinstance(one.value, bytes) and other.value == b"by its address":
        assert len(one.value) > 1024
    elif one.is_empty:
        assert other.is_empty
    else:
        assert one.value == other.value, one.tag


def test_names_have_their_three_groups_and_empty_values_keep_their_place() -> None:
    data_set = Dataset()
    data_set.PatientName = PersonName("Yamada^Tarou=山田^太郎=やまだ^たろう")
    data_set.OtherPatientNames = [PersonName("A^B"), PersonName("")]
    data_set.ImageType = ["ORIGINAL", "", "M"]
    data_set.add(DataElement(0x00080018, "UI", ""))

    model = model_of(data_set)

    assert model["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert model["00101001"]["Value"] == [{"Alphabetic": "A^B"}, None]
    assert model["00080008"]["Value"] == ["ORIGINAL", None, "M"]
    assert model["00080018"] == {"vr": "UI"}


def test_numbers_are_numbers_and_what_json_cannot_count_is_text() -> None:
    data_set = Dataset()
    data_set.EchoTime = "60.50"
    data_set.InstanceNumber = "7"
    data_set.Rows = 512
    data_set.add(DataElement(0x00189087, "FD", [1.5, float("nan"), float("-inf")]))
    data_set.add(DataElement(0x00280009, "AT", [0x00181063]))

    model = model_of(data_set)

    assert model["00180081"] == {"vr": "DS", "Value": [60.5]}
    assert model["00200013"] == {"vr": "IS", "Value": [7]}
    assert model["00280010"] == {"vr": "US", "Value": [512]}
    assert model["00189087"] == {"vr": "FD", "Value": [1.5, "NaN", "-Infinity"]}
    assert model["00280009"] == {"vr": "AT", "Value": ["00181063"]}


def test_long_binary_values_are_named_by_the_path_to_them() -> None:
    item, deeper = Dataset(), Dataset()
    deeper.add(DataElement(0x00282000, "OB", b"\1" * 2000))
    item.add(DataElement(0x00480105, "SQ", Sequence([Dataset(), deeper])))
    data_set = Dataset()
    data_set.add(DataElement(0x00282000, "OB", b"\1" * 1024))
    data_set.add(DataElement(0x00420011, "OB", b"\1" * 1025))
    data_set.add(DataElement(0x52009230, "SQ", Sequence([item])))

    model = model_of(data_set)

    assert set(model["00282000"]) == {"vr", "InlineBinary"}
    assert model["00420011"] == {"vr": "OB", "BulkDataURI": "uri/00420011"}
    assert '"uri/52009230.1.00480105.2.00282000"' in json.dumps(model)


def test_a_value_that_is_none_of_its_kind_is_given_as_it_is_and_hides_no_other() -> None:
    data_set = Dataset()
    data_set.PatientID = "P1"
    data_set.add(
        DataElement(0x00200013, "IS", "seven", validation_mode=config.IGNORE, already_converted=True)
    )

    model = model_of(data_set)

    assert model["00100020"]["Value"] == ["P1"]
    assert model["00200013"]["vr"] == "UN"
