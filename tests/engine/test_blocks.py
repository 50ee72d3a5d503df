"""Blocks that are computed again or compiled give the same gradients; what blocks cannot be."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from common.errors import UserError
from engine.blocks import compile_blocks, recompute_blocks
from engine.config.loader import load_config
from small_run import pretrain_settings, write_config
from task_batches import ALL, pair_batch, pretraining


@pytest.mark.parametrize(("share", "chosen"), [(False, []), (0.25, [3]), (0.5, [1, 3]), (0.75, [1, 2, 3]), (True, [0, 1, 2, 3])])
def test_a_share_of_the_blocks_is_spread_over_the_depth(share: bool | float, chosen: list[int]) -> None:
    blocks = [nn.Linear(1, 1) for _ in range(4)]
    recompute_blocks([blocks], share)
    assert [index for index, block in enumerate(blocks) if "forward" in vars(block)] == chosen


@pytest.mark.parametrize("share", [0.5, True])
def test_recomputed_blocks_draw_the_same_dropout_and_give_the_same_gradients(share: bool | float) -> None:
    gradients = []
    for recomputed in (False, share):
        task = pretraining({"regions": {**ALL, "box": 1.0}}, dropout=0.2).train()
        model = task.model
        recompute_blocks([model.vision.blocks(), model.text.blocks(), model.fusion.blocks()], recomputed)
        torch.manual_seed(5)
        torch.stack(list(task({"regions": pair_batch(6, regions=True)}).values())).sum().backward()
        gradients.append([parameter.grad for parameter in task.parameters() if parameter.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed"])
def test_graphs_are_refused_where_weights_move(strategy: str, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(tmp_path, 1))
    with pytest.raises(UserError, match=r"engine\.compile = graphs needs weights that stay in place"):
        load_config(config, [f"engine.strategy={strategy}", "engine.compile=graphs"], "pretrain")


@pytest.mark.slow
def test_compiled_blocks_give_the_same_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as in a run; only the code generator, which takes minutes on a CPU, is left out."""
    counter = CompileCounterWithBackend("aot_eager")
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda block, **settings: compile_module(block, backend=counter, **settings))
    batch = {"regions": pair_batch(6, regions=True)}
    found: list[list[Tensor]] = []
    for compiled in (False, True):
        task = pretraining({"regions": {**ALL, "box": 1.0}}).train()
        if compiled:
            compile_blocks(task.model.vision.blocks(), [*task.model.text.blocks(), *task.model.fusion.blocks()])
        losses = task(batch)
        torch.stack(list(losses.values())).sum().backward()
        found.append([*losses.values(), *(parameter.grad for parameter in task.parameters() if parameter.grad is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert counter.frame_count >= 3  # a block of each encoder
