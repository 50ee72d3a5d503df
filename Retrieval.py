"""Fine-tune and evaluate image-text retrieval. `python run.py --task retrieval --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.streams.base import TextSide
from dataset.tasks.galleries import gallery_sources
from dataset.tasks.retrieval import RetrievalTrain
from engine.config.schema import RetrievalConfig
from engine.evaluators import Inputs, retrieval_evaluator
from engine.finish import finish
from engine.launch import launch
from engine.trainer import Engine
from models.tasks.retrieval import Retrieval


def main(config: RetrievalConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    data = config.data
    inputs = Inputs.of(config, engine.device, engine.interruption)
    validation, test = (retrieval_evaluator(gallery_sources(data, split), inputs, config.evaluation) for split in ("validation", "test"))
    task = Retrieval(config.model, config.loss_weights.model_dump(), config.gradient_mode)
    engine.initialize(task.model)
    train = RetrievalTrain(data, TextSide(inputs.tokenizer, inputs.max_tokens, masking=None), inputs.image_size, "train")
    engine.fit(task, {"train": train}, validation, select="r_mean")
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "retrieval")
