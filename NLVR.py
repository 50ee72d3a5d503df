"""Fine-tune and evaluate statements about two images. `python run.py --task nlvr --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.config import ImageTextStream
from dataset.streams.base import TextSide
from dataset.streams.build import build_stream
from dataset.tasks.labelled import LabelledTrain
from dataset.tasks.nlvr import statement_reader
from engine.config.nlvr import NlvrConfig
from engine.evaluators import HeldOut, Inputs, StatementEvaluator
from engine.finish import finish
from engine.launch import launch
from engine.trainer import Engine
from models.tasks.nlvr import Nlvr, TextAssignment


def main(config: NlvrConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once; or pre-train on images with captions."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    if config.assignment is not None:
        assign(engine, config, config.assignment, inputs)
        return
    data = config.data
    assert data is not None, "the config has one of both"
    text = TextSide(inputs.tokenizer, inputs.max_tokens, masking=None)
    train = LabelledTrain(data, statement_reader, text, inputs.image_size)
    held_out = HeldOut(data, statement_reader, inputs, config.evaluation.batch_size, train.labels, output_dir / "predictions")
    validation, test = (StatementEvaluator(split, held_out) for split in ("validation", "test"))
    task = Nlvr(config.model, config.pair_fusion, config.gradient_mode)
    engine.initialize(task.model)
    engine.fit(task, {"train": train}, validation, select="acc")
    finish(engine, test, config)


def assign(engine: Engine, config: NlvrConfig, settings: ImageTextStream, inputs: Inputs) -> None:
    """X-VLM's domain pre-training."""
    task = TextAssignment(config.model, config.gradient_mode)
    engine.initialize(task.model)
    vision = config.model.vision
    stream = build_stream("train", settings, inputs.tokenizer, inputs.max_tokens, vision.image_size, vision.stride, config.storage)
    engine.fit(task, {"train": stream})
    finish(engine, None, config)


if __name__ == "__main__":
    launch(main, "nlvr")
