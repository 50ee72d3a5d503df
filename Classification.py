"""Fine-tune and evaluate labels of images, texts, or texts with images. `python run.py --task classification --config ...` launches it."""

from pathlib import Path

from dataset.tasks.classification import classification_reader
from engine.config.classification import ClassificationConfig
from engine.evaluators import ClassEvaluator, HeldOut, Inputs
from engine.evaluators.labelled import train_labels
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: ClassificationConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    streams = open_streams(config, inputs.tokenizer)
    read, labels = classification_reader(config.data, config.head.inputs), train_labels(streams["train"])
    held_out = HeldOut(config.data, read, inputs, config.evaluation.batch_size, labels, output_dir / "predictions")
    validation, test = (ClassEvaluator(split, held_out, config.metrics) for split in ("validation", "test"))
    task = make_task(config)
    engine.initialize(task.model)
    engine.fit(task, streams, validation, select=config.metrics[0])
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "classification")
