"""Which charts a run gets, and what they say."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np

from evaluation.report.curves import MAX_POINTS, Chart, charts, draw
from evaluation.report.history import Curve, History


def curve(*values: float) -> Curve:
    return Curve(np.arange(1, len(values) + 1), np.array(values))


def svg(uri: str) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(uri.partition("base64,")[2]))


def test_every_objective_has_a_chart_with_a_line_for_each_stream() -> None:
    names = ("loss", "images/itc", "regions/itc", "regions/box_l1", "lr/vision", "lr/text", "samples_per_second", "data_wait", "grad_norm")
    found = charts(History({"train": {name: curve(2.0, 1.0) for name in names}}, 0.0))
    assert [chart.title for chart in found["Losses"]] == ["Total loss", "Contrastive (ITC)", "Box, L1 · regions"]
    assert set(found["Losses"][1].lines) == {"images", "regions"}
    titles = [chart.title for chart in found["Learning rate and speed"]]
    assert titles == ["Learning rate", "Throughput", "Time spent waiting for data", "Gradient norm"]
    assert set(found["Learning rate and speed"][0].lines) == {"vision", "text"}
    np.testing.assert_array_equal(found["Learning rate and speed"][2].lines[""].values, [200.0, 100.0])
    assert "Validation" not in found


def test_a_stream_has_one_colour_in_all_charts() -> None:
    train = {name: curve(2.0, 1.0) for name in ("images/itc", "regions/itc", "regions/box_l1")}
    itc, box = charts(History({"train": train}, 0.0))["Losses"]
    assert itc.colours["regions"] == box.colours["regions"] != itc.colours["images"]


def test_validation_losses_stand_beside_training_and_metrics_apart() -> None:
    kinds = {
        "train": {"loss": curve(3.0, 2.0), "images/itc": curve(2.0, 1.0)},
        "validation": {"loss": curve(4.0), "images/itc": curve(3.0), "tr_r1": curve(10.0), "tr_r5": curve(20.0), "accuracy": curve(50.0)},
    }
    found = charts(History(kinds, 0.0))
    assert set(found["Losses"][0].dashed) == {"total"}
    assert set(found["Losses"][1].dashed) == {"images"}
    assert {chart.title: sorted(chart.lines) for chart in found["Validation"]} == {
        "Image to text": ["TR R@1", "TR R@5"],
        "Accuracy": ["accuracy, IoU >= 0.5"],
    }


def test_a_chart_is_an_svg_with_a_description_of_its_course() -> None:
    picture = draw(Chart("Total loss", {"total": curve(np.nan, 4.0, 1.5)}))
    assert svg(picture.uri).tag.endswith("svg")
    assert picture.alt == "Total loss: total from 4 at step 2 to 1.5 at step 3."


def test_a_run_that_never_had_a_finite_value_is_drawn_too() -> None:
    assert draw(Chart("Total loss", {"total": curve(np.nan, np.inf)})).alt == "Total loss: no values."


def test_long_runs_make_no_larger_pictures() -> None:
    rng = np.random.default_rng(0)
    at_limit = draw(Chart("x", {"": curve(*rng.random(MAX_POINTS))}))
    far_above = draw(Chart("x", {"": curve(*rng.random(100 * MAX_POINTS))}))
    assert len(far_above.uri) < 1.2 * len(at_limit.uri)


def test_updates_of_a_step_share_a_chart_of_their_gradient_norms() -> None:
    names = ("gradient_norm", "gradient_norm/texts", "gradient_norm/regions+photographs", "images/mim")
    found = charts(History({"train": {name: curve(2.0, 1.0) for name in names}}, 0.0))
    assert [chart.title for chart in found["Losses"]] == ["Masked patches (MIM)"]
    (norms,) = found["Learning rate and speed"]
    assert set(norms.lines) == {"texts", "regions+photographs"}
