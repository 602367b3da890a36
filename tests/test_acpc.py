"""Positions relative to the commissures."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from gpnet_node.errors import ConfigurationError
from gpnet_node.results.acpc import Plan, read_plan

# A head that is not turned: AC 12 mm in front of PC's mirror point, a point of the falx above.
AC, PC, FALX = (1.0, -14.0, 5.0), (1.0, 12.0, 5.0), (1.0, 0.0, 60.0)


def plan(**points: tuple[float, float, float]) -> Plan:
    return Plan.model_validate(
        {"frame_of_reference_uid": "1.2", "ac_mm": AC, "pc_mm": PC, "midline_mm": FALX} | points
    )


def test_left_front_and_up_are_the_patients_and_count_from_the_middle_of_the_commissures() -> None:
    position = plan().position((21.0, -4.0, 2.0))

    assert position == pytest.approx((20.0, 3.0, -3.0))


def test_a_midline_point_below_the_commissures_says_the_same() -> None:
    below = plan(midline_mm=(1.0, -5.0, -40.0))

    assert below.position((21.0, -4.0, 2.0)) == pytest.approx((20.0, 3.0, -3.0))


@given(st.tuples(*(st.floats(-60, 60) for _ in range(3))), st.tuples(*(st.floats(-20, 20) for _ in range(3))))
def test_a_turned_and_moved_head_has_the_same_positions(
    degrees: tuple[float, float, float], shift: tuple[float, float, float]
) -> None:
    turn = Rotation.from_euler("xyz", [degrees[0] / 2, degrees[1] / 2, degrees[2]], degrees=True)

    def moved(point: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, z = (turn.apply(point) + shift).tolist()
        return x, y, z

    turned = plan(ac_mm=moved(AC), pc_mm=moved(PC), midline_mm=moved(FALX))

    assert turned.position(moved((21.0, -4.0, 2.0))) == pytest.approx((20.0, 3.0, -3.0), abs=1e-6)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ({"pc_mm": (1.0, 40.0, 5.0)}, "54.0 mm apart"),
        ({"pc_mm": AC}, "0.0 mm apart"),
        ({"midline_mm": (4.0, 3.0, 9.0)}, "5.0 mm from the line"),
    ],
)
def test_points_that_cannot_be_what_they_are_called_are_refused(
    points: dict[str, tuple[float, float, float]], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        plan(**points)


def test_a_plan_file_is_read_and_a_wrong_key_named_with_its_line(tmp_path: Path) -> None:
    good = tmp_path / "plan.toml"
    good.write_text(
        'frame_of_reference_uid = "1.2"\nac_mm = [1, -14, 5]\npc_mm = [1, 12, 5]\nmidline_mm = [1, 0, 60]\n'
    )
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(good.read_text() + "mcp_mm = [0, 0, 0]\n")

    assert read_plan(good) == plan()
    with pytest.raises(ConfigurationError, match=r"wrong.toml, line 5: mcp_mm"):
        read_plan(wrong)
