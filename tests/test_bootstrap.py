import numpy as np
import pytest

from gpnet_node.model.evaluation.bootstrap import clustered, difference_of_medians, median


def test_an_interval_is_wider_where_all_the_images_are_of_few_people() -> None:
    rng = np.random.default_rng(2)
    of_person = rng.normal(0.8, 0.1, 6)
    people = [str(n % 6) for n in range(48)]
    values = of_person[np.arange(48) % 6][:, None] + rng.normal(0, 0.01, (48, 2))

    few = clustered(values, people, median, np.random.default_rng(3), resamples=500)
    many = clustered(values, [str(n) for n in range(48)], median, np.random.default_rng(3), resamples=500)

    assert few.low < few.estimate < few.high
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_a_difference_is_taken_between_methods_on_the_same_images() -> None:
    rng = np.random.default_rng(4)
    hard = rng.uniform(0.5, 0.9, (30, 2))  # some images are hard for both methods
    pairs = np.stack([hard + 0.1, hard], -1)

    found = clustered(pairs, [str(n % 6) for n in range(30)], difference_of_medians, rng, resamples=300)

    assert (found.low, found.estimate, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_an_image_without_a_person_is_refused() -> None:
    with pytest.raises(ValueError, match="2 images, 1 people"):
        clustered(np.zeros((2, 2)), ["a"], median, np.random.default_rng(0))
