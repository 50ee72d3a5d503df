"""Recall numbers: recorded reference values, and rules that hold for every score matrix."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.retrieval import candidate_ranks, chance_hit, chance_recall, ranks, recall_metrics

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "functions_x2vlm"

# scores and recalls recorded from the official evaluation: 6 images, 12 texts, text t belongs to image t % 6
I2T = np.array(
    [
        [0.1594, 0.5039, -0.1256, 1.0923, -1.4532, 1.8436, 0.3723, 1.9199, 1.243, -0.0881, -1.0408, 0.8399],
        [1.1802, 0.1711, 0.2254, 0.1936, -1.6546, -1.9872, 0.1183, 0.3407, -1.0785, -0.8562, 0.046, 0.4594],
        [0.8617, 1.4908, 0.1318, 0.4737, 1.816, 1.1358, -0.3397, 2.511, 1.0641, -1.1516, -1.1611, -0.2851],
        [-0.4689, 0.8844, 0.377, -1.4993, 0.3532, -0.4359, -1.6189, 0.7395, 0.973, 2.0725, 0.074, -1.1515],
        [-1.8888, 0.5006, 0.2573, 0.9262, 1.5637, 0.145, -0.9475, -0.823, -0.2819, 0.3708, 1.0031, 0.1001],
        [0.0152, -0.7326, 0.1616, 0.9584, 0.6543, 0.712, 0.5099, -1.2059, -1.1811, -0.7744, 0.7731, -0.0285],
    ]
)
T2I = np.array(
    [
        [4.1226, -0.5517, 0.9728, 0.7949, -0.7256, -0.0528],
        [-0.5672, 1.8951, 0.9305, 2.3458, -0.7969, -0.6368],
        [1.146, -1.0871, 1.1955, 1.0189, 0.7602, -1.1553],
        [1.2421, -0.7937, 0.0502, 1.3537, 1.4381, -0.534],
        [0.5717, -0.4389, -0.0262, 0.504, 2.3424, -0.3575],
        [-0.002, -0.4184, 1.2851, -1.2172, 0.893, 0.616],
        [-0.4608, 1.2472, 0.7258, 0.1996, -1.3807, 1.1492],
        [-0.2988, -0.2622, 0.6736, 1.1522, 0.8555, -0.4395],
        [-0.3809, 2.2509, 2.0875, 0.2293, -0.259, 0.8343],
        [-0.3839, -1.9089, 0.001, 0.2551, 0.3109, 0.5487],
        [0.1783, 0.0181, -0.6842, -0.4417, 0.9476, 0.2253],
        [-0.3857, -0.503, -0.0658, -0.3428, 1.1038, 0.6043],
    ]
)
EXPECTED = {"tr_r1": 100 / 3, "tr_r5": 250 / 3, "tr_r10": 100, "tr_mean": 650 / 9, "ir_r1": 100 / 3, "ir_r5": 100, "ir_r10": 100}
EXPECTED |= {"ir_mean": 700 / 9, "r_mean": 75}


def test_recalls_equal_the_recorded_official_ones() -> None:
    assert recall_metrics(I2T, T2I, [text % 6 for text in range(12)]) == pytest.approx(EXPECTED)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the recorded reference values are not beside this checkout")
def test_recalls_equal_all_recorded_cases() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(GOLDEN / "tensors.safetensors")
    for case in json.loads((GOLDEN / "functions.json").read_text())["itm_eval"]:
        found = recall_metrics(tensors[f"{case['tensors']}/i2t"], tensors[f"{case['tensors']}/t2i"], case["txt2img"])
        official = {name.replace("txt", "tr").replace("img", "ir"): value for name, value in case["out"].items()}
        assert found == pytest.approx({name.replace("_r_mean", "_mean"): value for name, value in official.items()})


def test_equal_scores_never_flatter() -> None:
    images, texts = 20, 40
    found = recall_metrics(np.zeros((images, texts)), np.zeros((texts, images)), [text // 2 for text in range(texts)])
    assert set(found.values()) == {0.0}


def test_right_candidates_outside_the_reranked_ones_are_no_hits() -> None:
    # only the first three texts and images were re-ranked, all others share one low constant
    scores = np.full((15, 15), -100.0)
    scores[:, :3] = 1.0
    found = recall_metrics(scores, scores, list(range(15)))
    assert found["tr_r10"] == found["ir_r10"] == pytest.approx(100 * 3 / 15)


def test_own_captions_do_not_push_one_another_down() -> None:
    i2t = np.array([[5.0, 5.0, 4.0, 1.0], [9.0, 0.0, 0.0, 8.0]])
    found = recall_metrics(i2t, i2t.T, [0, 0, 0, 1])
    assert found["tr_r1"] == 50.0  # image 0 wins with two equal captions of its own; image 1 has a wrong one above
    assert found["tr_r5"] == 100.0


def test_scores_that_are_not_numbers_count_against_the_model() -> None:
    i2t = np.array([[np.nan, 0.0], [0.0, 1.0]])
    found = recall_metrics(i2t, i2t.T, [0, 1])
    assert found["tr_r1"] == found["ir_r1"] == 50.0
    assert recall_metrics(np.full((2, 2), np.nan), np.full((2, 2), np.nan), [0, 1])["tr_r1"] == 0.0
    wrong_is_nan = np.array([[1.0, np.nan], [np.nan, 1.0]])
    assert recall_metrics(wrong_is_nan, wrong_is_nan, [0, 1])["ir_r1"] == 0.0


def test_images_without_texts_are_distractors() -> None:
    i2t = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    found = recall_metrics(i2t, i2t.T, [0, 1])
    assert found["tr_r1"] == 100.0
    assert found["ir_r1"] == 0.0


def test_chance_is_the_average_over_random_orders() -> None:
    rng = np.random.default_rng(0)
    text_image = [0, 0, 0, 1, 2, 2, 3, 4, 5, 5, 6, 6, 6, 7]
    draws = [recall_metrics(rng.random((8, 14)), rng.random((14, 8)), text_image) for _ in range(1500)]
    chance = chance_recall(8, text_image)
    assert chance.keys() == draws[0].keys()
    for name, expected in chance.items():
        assert np.mean([draw[name] for draw in draws]) == pytest.approx(expected, abs=1.5), name


def test_chance_of_known_sizes() -> None:
    assert chance_hit(500, 1, 1) == pytest.approx(1 / 500)
    assert chance_hit(10, 3, 2) == pytest.approx(1 - (7 / 10) * (6 / 9))
    assert chance_hit(4, 1, 10) == 1.0
    assert chance_recall(500, [image for image in range(500) for _ in range(5)])["tr_r1"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("i2t", "t2i", "text_image"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), [0, 1, 1]),
        (np.zeros((2, 3)), np.zeros((3, 2)), [0, 1]),
        (np.zeros((2, 3)), np.zeros((3, 2)), [0, 1, 2]),
        (np.zeros((2, 0)), np.zeros((0, 2)), []),
    ],
)
def test_shapes_that_do_not_fit_are_refused(i2t: np.ndarray, t2i: np.ndarray, text_image: list[int]) -> None:
    with pytest.raises(ValueError, match="text"):
        recall_metrics(i2t, t2i, text_image)


def test_ranks_among_candidates_are_those_of_rows_whose_other_scores_are_lowest() -> None:
    rng = np.random.default_rng(3)
    images, texts, k = 9, 20, 4
    owner = np.array([*range(images), *rng.integers(0, images, texts - images)])
    candidates = np.argsort(rng.random((images, texts)), axis=1)[:, :k]
    scores = rng.integers(0, 3, (images, k)).astype(float)  # with ties
    scores[0] = np.nan
    whole = np.full((images, texts), -100.0)
    np.put_along_axis(whole, candidates, scores, axis=1)
    right = owner == np.arange(images)[:, None]
    among = np.take_along_axis(right, candidates, axis=1)
    assert among.any()
    assert not among.any(axis=1).all()
    found = candidate_ranks(scores, among, (~right).sum(axis=1))
    expected = ranks(whole, right)
    expected[0] = (~right)[0].sum()  # where no right one has a score, all wrong ones stand before it
    assert found.tolist() == expected.tolist()
