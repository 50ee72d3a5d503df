"""Fine-tune and evaluate image-text retrieval. `python run.py --task retrieval --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.tasks.galleries import gallery_sources
from engine.config.schema import RetrievalConfig
from engine.evaluators import Inputs, retrieval_evaluator
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: RetrievalConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    data = config.data
    inputs = Inputs.of(config, engine.device, engine.interruption)
    validation, test = (retrieval_evaluator(gallery_sources(data, split), inputs, config.evaluation) for split in ("validation", "test"))
    task = make_task(config)
    engine.initialize(task.model)
    streams = open_streams(config, inputs.tokenizer) if config.schedule.trains else {}
    engine.fit(task, streams, validation, select="r_mean")
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "retrieval")
