from pathlib import Path

import numpy as np
import pytest

from gpnet_node.errors import SelfCheckError
from gpnet_node.results.check.source_planes import read_planes
from tests.pallida import OBLIQUE, draw_head


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_each_frame_is_where_the_volume_has_its_slice(tmp_path: Path, enhanced: bool) -> None:
    head = draw_head(tmp_path, spacing_mm=(1.5, 1.1, 0.9), orientation=OBLIQUE, enhanced=enhanced)

    planes = read_planes(head.volume)

    assert len(planes) == len(head.volume.frames)
    for index, frame in enumerate(head.volume.frames):
        plane = planes[frame.sop_instance_uid, frame.frame_number]
        wanted = (head.volume.geometry.affine @ [index, 7, 11, 1])[:3]
        assert plane.slice_index == index
        assert plane.pixels(wanted[None])[0] == pytest.approx([7, 11], abs=1e-4)
        assert plane.points_mm(np.array([[7.0, 11.0]]))[0] == pytest.approx(wanted, abs=1e-4)
        assert plane.distance_mm(wanted[None] + 0.5 * np.cross(OBLIQUE[:3], OBLIQUE[3:])) == pytest.approx(
            0.5
        )


def test_a_source_that_is_no_longer_readable_is_named(tmp_path: Path) -> None:
    head = draw_head(tmp_path)
    head.paths[3].write_bytes(b"")

    with pytest.raises(SelfCheckError, match=head.volume.frames[3].sop_instance_uid):
        read_planes(head.volume)
