"""Signs of life that ranks give one another, and what they say about who holds the others up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum

SHOWN = 4
"""Ranks described one by one; of more than these only the number is told."""


class Phase(Enum):
    """What the main thread of a rank is at, in this order: of two ranks at the same step the one in the earlier phase is behind."""

    LEFT = "no longer training"
    STARTING = "starting"
    EVALUATING = "evaluating"
    SAVING = "saving a checkpoint"
    LOADING = "waiting for data"
    TRAINING = "training"
    REPORTING = "writing the report"


ORDER = {phase: place for place, phase in enumerate(Phase)}


@dataclass(frozen=True)
class Heartbeat:
    """What one rank posts every few seconds. Nothing in it is a time of day: clocks of machines differ."""

    rank: int
    count: int
    """Goes up with every heartbeat: one that stands still is no sign of life."""
    step: int
    """The last finished step."""
    phase: Phase
    seconds: float
    """Since the rank last came on."""
    host: str
    pid: int
    loader: str = ""
    """What its data loader is at, where it waits for data and knows."""

    def to_text(self) -> str:
        """For the board."""
        return json.dumps(asdict(self) | {"phase": self.phase.name})

    @classmethod
    def from_text(cls, text: str) -> "Heartbeat":
        """From the board."""
        values = json.loads(text)
        return cls(**values | {"phase": Phase[values["phase"]]})

    @property
    def place(self) -> tuple[int, int]:
        """How far the rank has come."""
        return self.step, ORDER[self.phase]

    def where(self) -> str:
        """The phase, with the step it belongs to."""
        if self.phase is Phase.LOADING:
            return f"waiting for the data of step {self.step + 1}"
        if self.phase is Phase.TRAINING:
            return f"in training step {self.step + 1}"
        return f"{self.phase.value} after step {self.step}"

    def name(self) -> str:
        """Rank, machine and process."""
        return f"rank {self.rank} on {self.host} (pid {self.pid})"

    def standing(self) -> str:
        """Where it stands and for how long; a stalled loader is called so."""
        text = f"last finished step {self.step}, {self.where()} for {self.seconds:.0f} s"
        if self.phase is Phase.LOADING:
            text += f": a stalled loader{f' ({self.loader})' if self.loader else ''}"
        return text


def who_holds_up(heard: Mapping[int, Heartbeat], silent: Mapping[int, float], world: int) -> str:
    """Name the ranks that the others wait for.

    Args:
        heard: the last heartbeat of each rank, where there ever was one.
        silent: ranks that give no sign of life -> for how many seconds.
        world: number of ranks.
    """
    alive = [heard[rank] for rank in range(world) if rank in heard and rank not in silent]
    parts = [_silence(sorted(silent), heard, silent)] if silent else []
    last = min((beat.place for beat in alive), default=None)
    behind = [beat for beat in alive if beat.place == last]
    waiting = [beat for beat in alive if beat.place != last]
    if behind and waiting:
        parts.append(_behind(behind, waiting))
    elif behind and silent:
        others = "the other rank is" if len(behind) == 1 else f"the other {len(behind)} ranks are"
        parts.append(f"{others} {behind[0].where()}")
    elif behind:
        why = ": they wait for one another in a collective, or for their devices" if behind[0].phase is Phase.TRAINING else ""
        parts.append(f"all {len(behind)} ranks are {behind[0].where()}{why}")
    return "; ".join(parts)


def _silence(ranks: list[int], heard: Mapping[int, Heartbeat], silent: Mapping[int, float]) -> str:
    texts = []
    for rank in ranks[:SHOWN]:
        beat = heard.get(rank)
        if beat is None:
            texts.append(f"rank {rank} has never given a sign of life")
        else:
            last = f"last finished step {beat.step}, last heard of {beat.where()}"
            texts.append(f"{beat.name()} has given no sign of life for {silent[rank]:.0f} s: {last}")
    return "; ".join(texts) + _more(len(ranks))


def _behind(behind: list[Heartbeat], waiting: list[Heartbeat]) -> str:
    one = len(behind) == 1
    if one:
        text = f"{behind[0].name()} is the one that holds the others up: {behind[0].standing()}"
    else:
        each = "; ".join(f"{beat.name()}: {beat.standing()}" for beat in behind[:SHOWN])
        text = f"{len(behind)} ranks hold the others up: {each}{_more(len(behind))}"
    count = len(waiting)
    return f"{text}; {_ranks(count)} {'waits' if count == 1 else 'wait'} for {'it' if one else 'them'}, {waiting[0].where()}"


def _more(count: int) -> str:
    return f"; and {count - SHOWN} more" if count > SHOWN else ""


def _ranks(count: int) -> str:
    return f"{count} rank{'' if count == 1 else 's'}"
