"""Fine-tune and evaluate captioning. `python run.py --task captioning --config ...` launches it on any number of GPUs."""

from pathlib import Path

from common.distributed import is_main
from dataset.tasks.captioning import CaptionTrain
from engine.config.captioning import CaptioningConfig
from engine.evaluators import Inputs, Probes
from engine.evaluators.captioning import CaptionEvaluator, constant_captions
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: CaptioningConfig, output_dir: Path) -> None:
    """Choose the best weights on validation, report the test sets once and write their captions; or learn a domain's language."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    streams, data = open_streams(config, inputs.tokenizer), config.data
    tests: dict[str, CaptionEvaluator] = {}
    validation = None
    if data is not None:
        train = streams["train"]
        assert isinstance(train, CaptionTrain), "this task trains on no other"
        guesses = constant_captions(train.references)
        for name, path in data.tests.items():
            tests[name] = CaptionEvaluator(Path(path), config, inputs, data.image_roots.get(name, data.image_root), guesses, official=True)
        validation = CaptionEvaluator(Path(data.validation), config, inputs, data.image_root)
    task = make_task(config)
    engine.initialize(task.model)
    engine.fit(task, streams, validation, select="cider_words" if validation is not None else None)
    finish(engine, tests.get("") or (Probes(tests) if tests else None), config)
    for name, test in tests.items() if is_main() else ():
        test.write(output_dir / (f"captions_{name}.json" if name else "captions.json"))


if __name__ == "__main__":
    launch(main, "captioning")
