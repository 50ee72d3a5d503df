"""Fine-tune and evaluate visual grounding. `python run.py --task grounding --config ...` launches it on any number of GPUs."""

from pathlib import Path

from engine.config.grounding import GroundingConfig, HeatMethod
from engine.evaluators import GroundingEvaluator, Inputs
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: GroundingConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    data = config.data
    inputs = Inputs.of(config, engine.device, engine.interruption)
    first = data.train if isinstance(data.train, str) else data.train[0]
    mean_box_from = None if isinstance(config.method, HeatMethod) else config.expressions(first)  # heat reads no box in training
    validation, test = (
        GroundingEvaluator(config.expressions(names), inputs, config.evaluation, config.method, mean_box_from, data.punctuation)
        for names in (data.validation, data.test)
    )
    task = make_task(config)
    engine.initialize(task.model)
    streams = open_streams(config, inputs.tokenizer) if config.schedule.trains else {}
    engine.fit(task, streams, validation, select="accuracy")
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "grounding")
