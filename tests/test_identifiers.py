from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydicom.uid import UID

from gpnet_node.model.card import ModelCard, read_card
from gpnet_node.results.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    JobIdentity,
    content_digest,
    device_uid,
    uid,
)
from tests.pallida import JOB, draw_head


@pytest.fixture
def card(model_folder: Path) -> ModelCard:
    return read_card(model_folder)


def test_a_uid_is_valid_and_depends_on_job_purpose_and_content_only() -> None:
    first = uid(JOB, "seg", "abc")

    assert first == uid(replace(JOB, software_version="9"), "seg", "abc")
    assert (
        len(
            {
                first,
                uid(JOB, "sr", "abc"),
                uid(JOB, "seg", "abd"),
                uid(replace(JOB, job_uid="2"), "seg", "abc"),
            }
        )
        == 4
    )
    for text in (first, device_uid(JOB), IMPLEMENTATION_CLASS_UID):
        assert UID(text).is_valid
        assert len(text) <= 64
        assert text.startswith("2.25.")


def test_a_uid_stays_what_it_was_in_earlier_releases() -> None:
    assert uid(JOB, "seg", "abc") == "2.25.66921171849723011927763487727755097244"


def test_a_device_is_the_same_observer_in_every_job() -> None:
    assert device_uid(JOB) == device_uid(replace(JOB, job_uid="2.25.5"))
    assert device_uid(JOB) != device_uid(replace(JOB, node_ae_title="OTHER"))


def test_another_voxel_model_software_node_time_zone_or_option_is_another_content(
    tmp_path: Path, card: ModelCard
) -> None:
    tokyo = timezone(timedelta(hours=9))
    labels = draw_head(tmp_path).labels
    moved = labels.labels.copy()
    moved[0, 0, 0] = 1
    other_labels = replace(labels, labels=moved)
    other_card = card.model_copy(update={"weights_sha256": "00"})

    digests = {
        content_digest(labels, card, JOB),
        content_digest(other_labels, card, JOB),
        content_digest(labels, other_card, JOB),
        content_digest(labels, card, replace(JOB, software_version="9")),
        content_digest(labels, card, replace(JOB, node_ae_title="OTHER")),
        content_digest(labels, card, replace(JOB, created_at=JOB.created_at.astimezone(tokyo))),
        content_digest(labels, card, JOB, "omit"),
    }

    assert len(digests) == 7
    assert content_digest(labels, card, JOB) == content_digest(labels, card, replace(JOB, job_uid="2.25.5"))


def test_a_job_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        JobIdentity(job_uid="1", created_at=datetime(2026, 1, 1), node_ae_title="A", software_version="1")
