import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from gpnet_node.config import SHIPPED_MODEL, RouteConfig
from gpnet_node.errors import MissingSlicesError, NotEligibleError
from gpnet_node.model.drawing.drawn_series import write_series
from gpnet_node.model.segment import GPNetSegmenter
from gpnet_node.pipeline import Results, run
from gpnet_node.results.identifiers import JobIdentity
from tests.drawn import dice, drawn_head

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
JOB = JobIdentity(job_uid="2.25.99", created_at=NOON, node_ae_title="GPNET", software_version="0")
ROUTE = RouteConfig(name="gpnet", model=SHIPPED_MODEL)


@pytest.fixture(scope="module")
def segmenter(model_folder: Path) -> GPNetSegmenter:
    return GPNetSegmenter(model_folder)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_series(
        drawn_head(), tmp_path_factory.mktemp("drawn") / "series", description="T2 TSE", at=NOON
    )


def segmented(
    paths: Sequence[Path], segmenter: GPNetSegmenter, *, routes: Sequence[RouteConfig] | None = (ROUTE,)
) -> Results:
    return run(paths, job=JOB, routes=routes, segmenter_for=lambda route: segmenter)


def test_files_of_a_series_become_a_segmentation_and_a_report(
    series: tuple[Path, ...], segmenter: GPNetSegmenter
) -> None:
    results = segmented(series, segmenter)

    assert [written.kind for written in results.objects] == ["seg", "sr"]
    assert results.route == ROUTE
    scores = [dice(results.content.labels.labels, drawn_head().labels, n) for n in (1, 2, 3, 4)]
    assert min(scores) > 0.7
    assert set(results.content.quality.edge_distance_mm) == {"left", "right"}
    assert results.content.quality.reasons == ()
    for measurement in results.content.measurements:
        assert 200 < measurement.volume_mm3 < 2000


def test_the_same_job_gives_the_same_bytes_whatever_the_order_of_the_files(
    series: tuple[Path, ...], segmenter: GPNetSegmenter
) -> None:
    digests = {
        tuple(hashlib.sha256(written.content).hexdigest() for written in segmented(paths, segmenter).objects)
        for paths in (series, tuple(reversed(series)))
    }

    assert len(digests) == 1


def test_a_series_of_another_field_strength_is_not_segmented(
    series: tuple[Path, ...], segmenter: GPNetSegmenter, tmp_path: Path
) -> None:
    for path in series:
        image = dcmread(path)
        image.MagneticFieldStrength = "3"
        image.save_as(tmp_path / path.name)

    with pytest.raises(NotEligibleError, match="3"):
        segmented(sorted(tmp_path.iterdir()), segmenter)


def test_without_a_gate_any_volume_is_segmented(series: tuple[Path, ...], segmenter: GPNetSegmenter) -> None:
    assert segmented(series, segmenter, routes=None).route is None


def test_a_missing_slice_ends_it_with_the_position(
    series: tuple[Path, ...], segmenter: GPNetSegmenter
) -> None:
    gap = [path for path in series if path.name != "0020.dcm"]

    with pytest.raises(MissingSlicesError) as caught:
        segmented(gap, segmenter)

    assert len(caught.value.positions_mm) == 1


def test_its_own_results_are_never_segmented(
    series: tuple[Path, ...], segmenter: GPNetSegmenter, tmp_path: Path
) -> None:
    written = segmented(series, segmenter).objects[0]
    (tmp_path / "seg.dcm").write_bytes(written.content)
    for path in series:
        image = dcmread(path)
        image.ImageType = ["DERIVED", "SECONDARY", "M"]
        image.save_as(tmp_path / path.name)

    with pytest.raises(NotEligibleError, match="DERIVED"):
        segmented([p for p in sorted(tmp_path.iterdir()) if p.name != "seg.dcm"], segmenter)


def test_the_written_series_is_the_drawn_head(series: tuple[Path, ...], segmenter: GPNetSegmenter) -> None:
    head = drawn_head()

    volume = segmented(series, segmenter).content.volume

    assert np.array_equal(volume.voxels, head.voxels.round())
    assert np.allclose(volume.geometry.affine, head.geometry.affine, atol=1e-4)
