"""Evaluate pre-trained weights by their contrastive features alone: classes of images by their names, attributes of objects (OVAD).
`python run.py --task zero_shot --config ...` launches it."""

from pathlib import Path

from engine.config.zero_shot import ZeroShotConfig
from engine.evaluators import Inputs
from engine.evaluators.zero_shot import ZeroShotEvaluator, zero_shot_question
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task
from engine.trainer import Engine


def main(config: ZeroShotConfig, output_dir: Path) -> None:
    """Report the test split."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    test = ZeroShotEvaluator(zero_shot_question(config), config, inputs, output_dir / "predictions")
    task = make_task(config)
    engine.initialize(task.model)
    engine.fit(task, {})
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "zero_shot")
