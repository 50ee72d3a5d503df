"""Fine-tune and evaluate statements about two images. `python run.py --task nlvr --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.tasks.nlvr import statement_reader
from engine.config.nlvr import NlvrConfig
from engine.evaluators import HeldOut, Inputs, StatementEvaluator
from engine.evaluators.labelled import train_labels
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: NlvrConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test split once; or pre-train on images with captions."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    streams = open_streams(config, inputs.tokenizer)
    validation = test = None
    if config.data is not None:
        labels = train_labels(streams["train"])
        held_out = HeldOut(config.data, statement_reader, inputs, config.evaluation.batch_size, labels, output_dir / "predictions")
        validation, test = (StatementEvaluator(split, held_out) for split in ("validation", "test"))
    task = make_task(config)
    engine.initialize(task.model)
    engine.fit(task, streams, validation, select="acc" if validation is not None else None)
    finish(engine, test, config)


if __name__ == "__main__":
    launch(main, "nlvr")
