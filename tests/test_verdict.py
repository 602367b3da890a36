from math import cos, sin
from pathlib import Path
from typing import Any

import pytest

from gpnet_node.store.states import AssociationOutcome, Instance
from gpnet_node.verdict import Count, Touch, count_images, examine, not_made_good
from tests.factories import mr_series, uid_of
from tests.stores import after

RELEASED, ABORTED, OPEN = AssociationOutcome.RELEASED, AssociationOutcome.ABORTED, AssociationOutcome.OPEN


def test_a_parallel_association_that_was_open_already_does_not_make_an_abort_good() -> None:
    def touch(number: int, outcome: AssociationOutcome, opened: float, closed: float | None) -> Touch:
        return Touch(
            association_id=number,
            calling_ae="MR",
            outcome=outcome,
            opened_at=after(opened),
            closed_at=None if closed is None else after(closed),
            last_at=after(opened),
        )

    aborted = touch(1, ABORTED, 0, 10)

    assert not_made_good([aborted, touch(2, RELEASED, 5, 20)]) == [aborted]
    assert not_made_good([aborted, touch(2, OPEN, 15, None)]) == [aborted]
    assert not_made_good([aborted, touch(2, RELEASED, 15, 20)]) == []
    assert not_made_good([aborted, touch(2, RELEASED, -3600, -3590)]) == []  # the clock was set back
    assert not_made_good([touch(2, ABORTED, 0, 10), touch(1, RELEASED, -20, 20)]) != []


def counted(**fields: Any) -> Instance:  # noqa: ANN401
    defaults = dict.fromkeys(set(Instance.__dataclass_fields__))
    return Instance(**{**defaults, "acquisition_number": 1, **fields})


@pytest.mark.parametrize(
    ("images", "count"),
    [
        ([counted(images_in_acquisition=2)] * 2, Count(there=2, told=2)),
        ([counted(images_in_acquisition=3)] * 2, Count(there=2, told=3)),
        ([counted(images_in_acquisition=1)] * 2, Count(there=2, told=None)),
        ([counted(images_in_acquisition=0)] * 2, Count(there=2, told=None)),
        ([counted()] * 2, Count(there=2, told=None)),
        (
            [counted(images_in_acquisition=2), counted(images_in_acquisition=2, acquisition_number=2)],
            Count(there=2, told=None),
        ),
        ([counted(number_of_frames=80)], Count(there=1, told=1)),
        ([counted(number_of_frames=80)] * 2, Count(there=2, told=None)),
        (
            [counted(number_of_frames=9, concatenation_uid="1", in_concatenation_total=2)],
            Count(there=1, told=2),
        ),
        (
            [counted(number_of_frames=9, concatenation_uid="1", in_concatenation_total=2)] * 2,
            Count(there=2, told=2),
        ),
        ([counted(number_of_frames=9, concatenation_uid="1")], Count(there=1, told=None)),
        ([counted(number_of_frames=9), counted(images_in_acquisition=2)], Count(there=2, told=None)),
        ([], Count(there=0, told=None)),
    ],
)
def test_the_headers_tell_a_number_only_where_they_agree_on_it(images: list[Instance], count: Count) -> None:
    assert count_images(images) == count


def test_of_many_stacks_that_are_no_volume_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    paths = mr_series(
        tmp_path, slices=20, ImageOrientationPatient=lambda i: [cos(i), sin(i), 0, -sin(i), cos(i), 0]
    )

    geometry = examine(paths)

    assert geometry.sentence.count("no volume: ") == 3
    assert uid_of(paths[2]) in geometry.sentence
    assert geometry.sentence.endswith("; and 17 more")
