"""A result beside published figures."""

from pathlib import Path

import pytest

from bench_request import bench_request
from common.errors import UserError
from engine.bench.reference import beside, read_reference
from engine.config.loader import load_config

BENCH = Path(__file__).parents[3] / "configs" / "bench"
NUMBERS = {"samples_per_second_best": 2.0, "peak_tflops": 0.5, "peak_memory_bytes": 5.1 * 2**30}


@pytest.mark.parametrize(
    ("dropped", "rows", "share"), [(None, 16, 1.0), ("streams.regions=null", 8, 0.545), ("streams.images=null", 8, 0.455)]
)
def test_each_part_of_the_step_is_set_beside_its_share(dropped: str | None, rows: int, share: float) -> None:
    config = load_config(BENCH / "x2vlm_base.yaml", [dropped] if dropped else []).config
    found = beside(read_reference(BENCH / "x2vlm_base_official.yaml"), config, NUMBERS)
    theirs = rows / (24.5 * share)
    assert found.samples_per_second == pytest.approx(theirs)
    assert found.speed_ratio_range == pytest.approx((4.0 / (theirs / 0.240), 4.0 / (theirs / 0.254)))
    assert found.memory_ratio == (pytest.approx(0.5) if dropped is None else None)
    assert found.same_rows


def test_other_streams_and_broken_files_are_one_line_each(tmp_path: Path) -> None:
    reference = read_reference(BENCH / "x2vlm_base_official.yaml")
    with pytest.raises(UserError, match="it is of streams image_text, region_text; the config has none"):
        beside(reference, bench_request(tmp_path, task="retrieval").config, NUMBERS)
    broken = tmp_path / "broken.yaml"
    broken.write_text("{source: x, seconds_per_step: -1, streams: {}, peak_tflops: [1, 2]}")
    with pytest.raises(UserError, match=r"broken.yaml: seconds_per_step: "):
        read_reference(broken)
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read"):
        read_reference(tmp_path / "absent.yaml")
