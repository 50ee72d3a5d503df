"""Which rank writes which tensor."""

import random

from engine.checkpoints import shares


def test_shares_are_the_same_on_all_ranks_whatever_the_order_of_names() -> None:
    sizes = {f"layer{number}": number % 5 for number in range(40)}
    shuffled = list(sizes.items())
    random.Random(1).shuffle(shuffled)
    assert shares(sizes, 3) == shares(dict(shuffled), 3)


def test_shares_hold_every_name_once_and_about_as_many_bytes() -> None:
    sizes = {"embedding": 400} | {f"layer{number}": 10 + number % 7 for number in range(120)}
    for world in (1, 2, 3, 4):
        parts = shares(sizes, world)
        assert sorted(name for part in parts for name in part) == sorted(sizes)
        loads = [sum(sizes[name] for name in part) for part in parts]
        assert max(loads) - min(loads) <= 16
    assert [len(part) for part in shares({"a": 1}, 3)] == [1, 0, 0]
