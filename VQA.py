"""Fine-tune and evaluate visual question answering. `python run.py --task vqa --config ...` launches it on any number of GPUs."""

from pathlib import Path

from common.distributed import is_main
from dataset.tasks.vqa import VqaTrain
from engine.config.vqa import VqaConfig
from engine.evaluators import Inputs, Probes
from engine.evaluators.vqa import VqaEvaluator, majority_answer
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: VqaConfig, output_dir: Path) -> None:
    """Choose the best weights on validation where there is one, report the test split once, and write its answers for EvalAI."""
    engine = Engine(config, output_dir)
    data = config.data
    inputs = Inputs.of(config, engine.device, engine.interruption)
    streams = open_streams(config, inputs.tokenizer)
    train = streams["train"]
    assert isinstance(train, VqaTrain), "this task trains on no other"
    guess = majority_answer(train.questions)
    tests = {name: VqaEvaluator(split, config, inputs, guess) for name, split in data.tests.items()}
    validation = VqaEvaluator("validation", config, inputs, guess) if data.validation is not None else None
    task = make_task(config)
    engine.initialize(task.model)
    if config.new_decoder:
        engine.new_parameters |= {name for name, _ in task.model.named_parameters() if name.startswith("decoder.")}
    engine.fit(task, streams, validation, select="vqa_accuracy" if validation is not None else None)
    finish(engine, tests.get("") or Probes(tests), config)
    for name, test in tests.items() if is_main() else ():
        test.write(output_dir / (f"vqa_result_{name}.json" if name else "vqa_result.json"))


if __name__ == "__main__":
    launch(main, "vqa")
