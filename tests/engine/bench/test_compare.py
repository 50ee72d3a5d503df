"""Settings that take turns."""

from dataclasses import dataclass, field

import pytest

from engine.bench.compare import take_turns


@dataclass
class FakeClock:
    """Time that passes only when somebody works."""

    now: float = 0.0
    order: list[str] = field(default_factory=list)

    def mark(self) -> float:
        return self.now

    def between(self, begin: float, end: float) -> float:
        return end - begin

    def wait(self) -> None:
        pass


@dataclass
class Worker:
    """Takes steps of a known length; the machine gets slower all the time."""

    name: str
    seconds: float
    clock: FakeClock
    drift: float = 0.0
    resumed: int = 0

    def resume(self) -> None:
        self.resumed += 1
        self.clock.now += 1000.0  # must not count

    def step(self) -> None:
        self.clock.order.append(self.name)
        self.clock.now += self.seconds * (1 + self.drift * len(self.clock.order))


def turns(steps: int, drift: float) -> tuple[FakeClock, list[float], float]:
    clock = FakeClock()
    workers = {"a": Worker("a", 2.0, clock, drift), "b": Worker("b", 1.0, clock, drift)}
    taken = take_turns(workers, steps, clock)
    assert workers["a"].resumed == workers["b"].resumed == min(steps, 5)
    return clock, taken.ratios("b", "a"), taken.seconds("b")


def test_blocks_alternate_and_give_the_ratio_of_the_speeds() -> None:
    clock, ratios, seconds = turns(7, drift=0.0)
    assert "".join(clock.order) == "ab" + "ab" + "aabb" + "ab" + "aabb"
    assert ratios == pytest.approx([2.0] * 5)
    assert seconds == pytest.approx(1.0)


def test_drift_of_the_machine_hits_both_so_that_the_ratio_stays() -> None:
    _, ratios, _ = turns(10, drift=0.05)  # at the end twice as slow as at the beginning
    assert ratios == pytest.approx([2.0] * 5, rel=0.1)
