"""How the tensors of a checkpoint are divided among the ranks."""

import heapq
from collections.abc import Mapping


def shares(sizes: Mapping[str, int], world: int) -> list[list[str]]:
    """Divide names so that every rank writes about as many bytes.

    Args:
        sizes: bytes by name; its order does not matter.
        world: number of ranks.

    Returns:
        Names of each rank, sorted; the same wherever it is called with the same sizes.
    """
    taken: list[list[str]] = [[] for _ in range(world)]
    loads = [(0, rank) for rank in range(world)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):  # the largest first, each to whoever has least
        load, rank = heapq.heappop(loads)
        taken[rank].append(name)
        heapq.heappush(loads, (load + sizes[name], rank))
    return [sorted(names) for names in taken]
