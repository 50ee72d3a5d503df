"""Fine-tune and evaluate image-text retrieval. `python run.py --task retrieval --config ...` launches it on any number of GPUs."""

from pathlib import Path

from engine.config.schema import RetrievalConfig
from engine.evaluators import Inputs, RetrievalEvaluator
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: RetrievalConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    data = config.data
    inputs = Inputs.of(config, engine.device, engine.interruption)
    validation, test = (RetrievalEvaluator(file, data.image_root, inputs, config.evaluation) for file in (data.validation, data.test))
    task = make_task(config)
    engine.initialize(task.model)
    engine.fit(task, open_streams(config, inputs.tokenizer), validation, select="r_mean")
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "retrieval")
