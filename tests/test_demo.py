from pathlib import Path

import pytest
from pydicom import dcmread

from gpnet_node import demo
from gpnet_node.errors import StorageError

pytestmark = pytest.mark.timeout(600)


def test_the_demonstration_ends_with_both_objects_at_the_pacs_and_a_picture(tmp_path: Path) -> None:
    said: list[str] = []

    shown = demo.run(tmp_path / "out", seed=7, say=said.append)

    assert dcmread(shown.segmentation, stop_before_pixels=True).SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert dcmread(shown.report).SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert shown.picture.read_bytes().startswith(b"\x89PNG")
    assert [m.structure.name for m in shown.measurements] == [
        "GPe left",
        "GPi left",
        "GPe right",
        "GPi right",
    ]
    assert all(200 < m.volume_mm3 < 2000 for m in shown.measurements)
    assert any("C-STORE" in sentence for sentence in said)


def test_a_folder_that_it_did_not_make_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "scanner").mkdir()
    (tmp_path / "scanner" / "precious.dcm").write_bytes(b"")

    with pytest.raises(StorageError, match="something else"):
        demo.run(tmp_path, seed=7, say=lambda _: None)

    assert (tmp_path / "scanner" / "precious.dcm").exists()
