import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
import tomlkit
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gpnet_node.errors import ConfigurationError, NoPallidumError, WeightsMismatchError
from gpnet_node.imaging.volume import LabelMap, Volume
from gpnet_node.model.card import WEIGHTS_NAME, read_card
from gpnet_node.model.checkpoint import part, take_over, weights_metadata
from gpnet_node.model.drawing.head import DrawnHead
from gpnet_node.model.evaluation.cohort import as_volume
from gpnet_node.model.evaluation.real_images import volume_of
from gpnet_node.model.network import GPNet, GPNetConfig
from gpnet_node.model.patient_grid import as_image, lps_grid, sample
from gpnet_node.model.segment import GPNetSegmenter, Segmentation, SideProbability, classes_on
from tests.drawn import dice, drawn_head

MARKER_MM = (60.0, 0.0, 0.0)  # LPS: far to the left


@pytest.fixture(scope="module")
def segmenter(model_folder: Path) -> GPNetSegmenter:
    return GPNetSegmenter(model_folder)


@pytest.fixture(scope="module")
def found(segmenter: GPNetSegmenter) -> Segmentation:
    """What is found in the first drawn head."""
    return segmenter.segment(as_volume(drawn_head()))


def centres_mm(labels: LabelMap) -> dict[int, NDArray[np.float64]]:
    affine = np.asarray(labels.geometry.affine)
    return {n: affine[:3, :3] @ np.argwhere(labels.labels == n).mean(0) + affine[:3, 3] for n in (1, 2, 3, 4)}


def assert_agrees(found: LabelMap, truth: DrawnHead, least: float) -> None:
    scores = {n: dice(found.labels, truth.labels, n) for n in (1, 2, 3, 4)}
    assert min(scores.values()) >= least, scores


def test_all_four_structures_of_a_drawn_head_are_found(
    segmenter: GPNetSegmenter, found: Segmentation
) -> None:
    assert_agrees(found.labels, drawn_head(), 0.7)
    assert min(found.quality.edge_distance_mm.values()) > 3
    assert set(found.quality.entropy) == {s.name for s in segmenter.card.structures}
    assert max(found.quality.entropy.values()) < np.log(3)


def test_an_oblique_slab_is_segmented_as_well(segmenter: GPNetSegmenter) -> None:
    head = drawn_head(seed=2, turned_degrees=(14.0, -6.0, 8.0), centre_mm=(5.0, -4.0, 3.0))

    found = segmenter.segment(as_volume(head))

    assert_agrees(found.labels, head, 0.65)


@pytest.mark.parametrize("turned", [(90.0, 0.0, 0.0), (0.0, 90.0, 0.0)], ids=["coronal", "sagittal"])
def test_coronal_and_sagittal_slabs_are_segmented(
    segmenter: GPNetSegmenter, turned: tuple[float, float, float]
) -> None:
    head = drawn_head(seed=3, slices=80, turned_degrees=turned)

    found = segmenter.segment(as_volume(head))

    assert_agrees(found.labels, head, 0.6)


def test_left_stays_left_when_rows_and_columns_run_the_other_way(
    segmenter: GPNetSegmenter, found: Segmentation
) -> None:
    flipped = segmenter.segment(_flipped(as_volume(drawn_head()))).labels

    for number, centre in centres_mm(found.labels).items():
        assert centres_mm(flipped)[number] == pytest.approx(centre, abs=0.5)
    assert centres_mm(flipped)[1][0] > 0 > centres_mm(flipped)[3][0]  # LPS: left is positive


@pytest.mark.parametrize(
    ("order", "flips"),
    [
        ((0, 1, 2), (False, False, False)),  # head first, supine
        ((0, 1, 2), (True, True, False)),  # head first, prone
        ((0, 1, 2), (True, False, True)),  # feet first, supine
        ((1, 0, 2), (False, True, False)),  # decubitus
        ((0, 2, 1), (False, False, True)),  # coronal
        ((1, 2, 0), (True, False, False)),  # sagittal
        ((0, 1, 2), (True, False, False)),  # a flipped affine: left-handed
        ((2, 0, 1), (False, True, True)),
    ],
    ids=["supine", "prone", "feet first", "decubitus", "coronal", "sagittal", "left-handed", "any"],
)
def test_left_is_on_the_side_of_a_marker_that_only_the_left_has(
    segmenter: GPNetSegmenter, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    marked = as_image(as_volume(drawn_head()))
    marked[marked.TransformPhysicalPointToIndex(MARKER_MM)] = 1e5
    volume = volume_of(sitk.Flip(sitk.PermuteAxes(marked, order), flips))
    marker = np.array(np.unravel_index(int(volume.voxels.argmax()), volume.voxels.shape))

    labels = segmenter.segment(replace(volume, voxels=volume.voxels.clip(0, 4095))).labels.labels

    left, right = (
        np.linalg.norm((np.argwhere(labels == n).mean(0) - marker) * volume.geometry.spacing) for n in (1, 3)
    )
    assert left < 45 < right  # mm in the image, whatever its coordinates say


def _flipped(volume: Volume) -> Volume:
    """The same head with rows and columns numbered from the other end (and so turned by half a circle)."""
    affine = np.asarray(volume.geometry.affine).copy()
    _, rows, columns = volume.voxels.shape
    affine[:3, 3] += affine[:3, 1] * (rows - 1) + affine[:3, 2] * (columns - 1)
    affine[:3, 1:3] *= -1
    return _volume(np.ascontiguousarray(volume.voxels[:, ::-1, ::-1]), affine, volume)


def _volume(voxels: NDArray[np.float32], affine: NDArray[np.float64], like: Volume) -> Volume:
    geometry = hd.VolumeGeometry(
        affine=affine,
        spatial_shape=voxels.shape,
        coordinate_system="PATIENT",
        frame_of_reference_uid=str(like.geometry.frame_of_reference_uid),
    )
    return replace(like, voxels=voxels, geometry=geometry, frames=like.frames[: len(voxels)])


def _from_slice(volume: Volume, first: int) -> Volume:
    """What is left of a volume whose first slices were not acquired."""
    affine = np.asarray(volume.geometry.affine).copy()
    affine[:3, 3] += affine[:3, 0] * first
    return _volume(volume.voxels[first:], affine, volume)


# -- the same again ------------------------------------------------------------------------------------------


def test_the_same_volume_gives_the_same_labels(segmenter: GPNetSegmenter, found: Segmentation) -> None:
    again = segmenter.segment(as_volume(drawn_head()))

    assert np.array_equal(again.labels.labels, found.labels.labels)
    assert again.quality == found.quality


@pytest.fixture
def other_number_of_threads() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(1 if usual > 1 else 2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("other_number_of_threads")
def test_another_number_of_threads_changes_at_most_one_voxel_in_ten_thousand(
    segmenter: GPNetSegmenter, found: Segmentation
) -> None:
    again = segmenter.segment(as_volume(drawn_head()))

    assert found.labels.labels.any()
    assert (again.labels.labels != found.labels.labels).mean() <= 1e-4


# -- what is not there ---------------------------------------------------------------------------------------


def test_a_slab_above_the_pallidum_is_refused_not_guessed(segmenter: GPNetSegmenter) -> None:
    head = drawn_head(seed=4, slices=30, centre_mm=(0.0, 0.0, 60.0))
    assert not head.labels.any()

    with pytest.raises(NoPallidumError):
        segmenter.segment(as_volume(head))


def test_an_empty_volume_is_refused(segmenter: GPNetSegmenter) -> None:
    volume = as_volume(drawn_head())

    with pytest.raises(NoPallidumError):
        segmenter.segment(replace(volume, voxels=np.zeros_like(volume.voxels)))


def test_a_pallidum_that_ends_at_the_first_slice_needs_review(segmenter: GPNetSegmenter) -> None:
    head = drawn_head()
    lowest = int(np.flatnonzero(head.labels.any(axis=(1, 2)))[0])

    quality = segmenter.segment(_from_slice(as_volume(head), lowest)).quality

    assert min(quality.edge_distance_mm.values()) < 3
    assert any("volume" in reason for reason in quality.reasons)


# -- between grids -------------------------------------------------------------------------------------------


def side_of(probability: NDArray[np.float32]) -> SideProbability:
    return SideProbability(
        side="left",
        probability=probability,
        lesion=np.zeros(probability.shape[1:], np.float32),
        spacing_mm=1.0,
        origin_mm=(0.0, 0.0, 0.0),
    )


def grid_of(side: SideProbability) -> sitk.Image:
    size = np.array(side.lesion.shape)
    return lps_grid((size[::-1] - 1) / 2, side.spacing_mm, side.lesion.shape)


def certain(classes: NDArray[np.integer]) -> NDArray[np.float32]:
    return np.stack([np.where(classes == c, 0.9, 0.05) for c in range(3)]).astype(np.float32)


def test_of_two_components_the_one_with_more_voxels_is_kept_whatever_its_labels() -> None:
    classes = np.zeros((12, 12, 12), int)
    classes[1:5, 1:5, 1:5] = 1  # 64 voxels of the smaller label
    classes[8:11, 8:11, 8:11] = 2  # 27 of the larger
    side = side_of(certain(classes))

    found = classes_on(side, grid_of(side))

    assert (found == 1).sum() == 64
    assert not (found == 2).any()


def test_a_hole_is_filled_by_the_more_probable_structure() -> None:
    classes = np.zeros((9, 9, 9), int)
    classes[2:7, 2:7, 2:7] = 1
    probability = certain(classes)
    probability[:, 4, 4, 4] = (0.5, 0.2, 0.3)
    side = side_of(probability)

    found = classes_on(side, grid_of(side))

    assert found[4, 4, 4] == 2
    assert (found > 0).sum() == 125


def test_probabilities_and_not_labels_are_carried_to_a_finer_grid() -> None:
    probability = np.zeros((3, 4, 4, 4), np.float32)
    probability[1, :, :, :2], probability[0, :, :, :2] = 1, 0
    probability[0, :, :, 2:], probability[1, :, :, 2:] = 0.6, 0.4
    finer = sitk.Image([40, 4, 4], sitk.sitkUInt8)
    finer.SetSpacing([0.1, 1.0, 1.0])

    found = classes_on(side_of(probability), finer)

    assert found[1, 1, :].sum() == 19  # GPe up to 1.8 mm, where its probability falls to a half


def test_noise_of_a_finer_grid_is_averaged_and_a_coarser_grid_is_left_alone() -> None:
    noise = np.random.default_rng(1).standard_normal((30, 90, 90)).astype(np.float32)
    fine, coarse = (sitk.GetImageFromArray(noise) for _ in range(2))
    fine.SetSpacing([0.3, 0.3, 1.0])
    coarse.SetSpacing([1.0, 1.0, 1.0])
    box = lps_grid((13.0, 13.0, 14.0), 0.6, (20, 20, 20))
    exactly = lps_grid((44.0, 44.0, 14.0), 1.0, (9, 9, 9))

    assert sample(fine, box).std() < 0.45  # linear sampling alone would leave 0.55 of it
    assert np.allclose(sample(coarse, exactly), noise[10:19, 40:49, 40:49], atol=1e-5)


def test_beyond_the_volume_a_box_is_zero() -> None:
    image = sitk.GetImageFromArray(np.ones((10, 10, 10), np.float32))

    assert sample(image, lps_grid((4.5, 4.5, 4.5), 1.0, (12, 12, 12))).sum() == 1000
    assert sample(image, lps_grid((90.0, 4.5, 4.5), 1.0, (12, 12, 12))).sum() == 0


def test_moved_boxes_tell_how_well_they_agree(model_folder: Path, tmp_path: Path) -> None:
    alone, together = (
        GPNetSegmenter(changed(model_folder, tmp_path, test_time_shifts=shifts)).segment(
            as_volume(drawn_head())
        )
        for shifts in (0, 1)
    )

    assert_agrees(together.labels, drawn_head(), 0.7)
    agreement = together.sides["left"].agreement
    assert agreement is not None
    assert 0.8 < min(agreement) <= 1
    told = together.quality.features["GPe left"]["agreement_logit"]
    assert 1 / (1 + np.exp(-told)) == pytest.approx(min(agreement[0], 0.98))
    assert alone.sides["left"].agreement is None


def test_a_network_with_a_fourth_channel_tells_of_lesions_and_finds_the_same_labels(
    found: Segmentation, model_folder: Path, tmp_path: Path
) -> None:
    settings = read_card(model_folder).network | {"out_channels": 4}
    changed(model_folder, tmp_path, network=settings, weights_sha256=_with_lesions(tmp_path, model_folder))

    told = GPNetSegmenter(tmp_path).segment(as_volume(drawn_head()))

    assert np.array_equal(told.labels.labels, found.labels.labels)
    assert told.sides["right"].lesion.min() > 0.99
    assert any("a lesion or lead of" in reason for reason in told.quality.reasons)


def _with_lesions(folder: Path, model: Path) -> str:
    """Weights whose fourth channel sees lesions everywhere; their SHA-256."""
    tensors = load_file(model / WEIGHTS_NAME)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in read_card(model).network.items()}
    network = GPNet(GPNetConfig(**values | {"out_channels": 4}))  # type: ignore[arg-type]
    take_over(network, part(tensors, "segmenter"))
    state = network.state_dict()
    per_head = state["join.weight"].view(4, -1, 4, 1, 1, 1)
    if read_card(model).network["out_channels"] == 3:
        per_head[:3, :, 3] = 0  # the new channel's head says nothing of GPe and GPi
    per_head[3], state["join.bias"][3] = 0, 10
    tensors |= {f"segmenter.{name}": value for name, value in state.items()}
    save_file(tensors, folder / WEIGHTS_NAME)
    return hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()


# -- the model's folder --------------------------------------------------------------------------------------


def changed(model: Path, folder: Path, **keys: object) -> Path:
    """The model's card with other keys, and its weights unless there are some."""
    card = tomlkit.parse((model / "card.toml").read_text(encoding="utf-8"))
    card.update(keys)
    (folder / "card.toml").write_text(tomlkit.dumps(card), encoding="utf-8")
    if not (folder / WEIGHTS_NAME).exists():
        (folder / WEIGHTS_NAME).write_bytes((model / WEIGHTS_NAME).read_bytes())
    return folder


def test_a_card_that_does_not_fit_its_weights_is_the_operators_to_mend(
    model_folder: Path, tmp_path: Path
) -> None:
    network = read_card(model_folder).network
    folder = changed(model_folder, tmp_path, network=network | {"filters": [16, 32, 64, 96]})

    with pytest.raises(ConfigurationError, match="does not fit"):
        GPNetSegmenter(folder)


def _written_for_the_card(model: Path, folder: Path) -> str:
    """Weights that say what they were trained for; their SHA-256."""
    save_file(load_file(model / WEIGHTS_NAME), folder / WEIGHTS_NAME, weights_metadata(read_card(model)))
    return hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("key", "value"), [("spacing_mm", 0.7), ("box_voxels", [40, 64, 48])], ids=["spacing", "box"]
)
def test_weights_that_were_trained_on_another_grid_are_refused_by_its_name(
    model_folder: Path, tmp_path: Path, key: str, value: object
) -> None:
    told = _written_for_the_card(model_folder, tmp_path)
    changed(model_folder, tmp_path, weights_sha256=told, **{key: value})

    with pytest.raises(WeightsMismatchError, match=key):
        GPNetSegmenter(tmp_path)


def test_weights_that_were_trained_for_other_labels_are_refused(model_folder: Path, tmp_path: Path) -> None:
    told = _written_for_the_card(model_folder, tmp_path)
    card = tomlkit.parse((model_folder / "card.toml").read_text(encoding="utf-8"))
    card["weights_sha256"] = told
    first, second, *_ = card["structures"]
    first["channel"], second["channel"] = second["channel"], first["channel"]
    (tmp_path / "card.toml").write_text(tomlkit.dumps(card), encoding="utf-8")

    with pytest.raises(WeightsMismatchError, match="structures"):
        GPNetSegmenter(tmp_path)


def test_weights_that_say_what_the_card_says_are_loaded(model_folder: Path, tmp_path: Path) -> None:
    told = _written_for_the_card(model_folder, tmp_path)
    changed(model_folder, tmp_path, weights_sha256=told)

    assert GPNetSegmenter(tmp_path).card.weights_sha256 == told
