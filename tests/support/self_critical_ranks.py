"""What every rank does in the test of self-critical training on several."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models.tasks.captioning import Describer, SelfCritical, SelfCriticalSettings, WritingSettings
from task_batches import small_config


class Evens:
    """Rewards captions for each even token."""

    describer = Describer((2, 7), 3, None)

    def __call__(self, tokens: Tensor, images: Tensor) -> Tensor:
        """See `models.tasks.captioning.Reward`."""
        return (tokens % 2 == 0).float().sum(dim=2)


def gradients_are_the_mean_of_all_ranks() -> None:
    """Compare what is left after the backward pass with the mean of what each rank finds by itself."""
    torch.manual_seed(0)
    task = SelfCritical(small_config(), WritingSettings(), "exact", SelfCriticalSettings(samples=3, max_length=4), Evens())
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(dist.get_rank()), dtype=torch.uint8)
    batches = {"train": {"image": image, "image_index": torch.arange(2)}}
    alone = _gradients(task, task, batches)
    shared = _gradients(task, DistributedDataParallel(task), batches)
    assert any(bool(gradient.abs().max() > 0) for gradient in alone.values())
    differs = False
    for name, gradient in alone.items():
        mean = gradient.clone()
        dist.all_reduce(mean)
        torch.testing.assert_close(shared[name], mean / dist.get_world_size(), atol=1e-6, rtol=1e-4)
        differs = differs or not torch.allclose(shared[name], gradient)
    assert differs, "every rank has images of its own"


def _gradients(task: SelfCritical, called: torch.nn.Module, batches: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    task.zero_grad()
    torch.manual_seed(10 + dist.get_rank())  # the same captions are drawn both times
    called(batches)["train/caption"].backward()
    return {name: parameter.grad.clone() for name, parameter in task.named_parameters() if parameter.grad is not None}
