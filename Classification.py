"""Fine-tune and evaluate labels of images, texts, or texts with images. `python run.py --task classification --config ...` launches it."""

from pathlib import Path

from dataset.streams.base import TextSide
from dataset.tasks.classification import classification_reader
from dataset.tasks.labelled import LabelledTrain
from engine.config.classification import ClassificationConfig
from engine.evaluators import ClassEvaluator, HeldOut, Inputs
from engine.finish import finish
from engine.launch import launch
from engine.trainer import Engine
from models.tasks.classification import Classification


def main(config: ClassificationConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    read = classification_reader(config.data, config.head.inputs)
    text = TextSide(inputs.tokenizer, inputs.max_tokens, masking=None)
    train = LabelledTrain(config.data, read, text, inputs.image_size)
    held_out = HeldOut(config.data, read, inputs, config.evaluation.batch_size, train.labels, output_dir / "predictions")
    validation, test = (ClassEvaluator(split, held_out) for split in ("validation", "test"))
    task = Classification(config.model, config.head, config.gradient_mode)
    engine.initialize(task.model)
    engine.fit(task, {"train": train}, validation, select="acc")
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "classification")
