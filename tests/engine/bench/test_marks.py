"""Stages make the whole."""

from engine.bench.marks import CountMarker, StageClock


def test_time_belongs_to_the_innermost_stage_and_all_stages_make_the_whole() -> None:
    now = 0

    def work(amount: int) -> None:
        nonlocal now
        now += amount

    clock = StageClock(CountMarker(lambda: now))
    for _ in range(2):
        work(100)  # outside of all stages
        with clock.stage("other"):
            work(1)
            with clock.stage("outer"):
                work(2)
                clock.timed("inner", work)(4)
                work(8)
            work(16)
    assert clock.take() == {"other": 2 * 17.0, "outer": 2 * 10.0, "inner": 2 * 4.0}
    assert clock.take() == {}
