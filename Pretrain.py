"""Pre-train on images, regions and clips. `python run.py --task pretrain --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.streams.concepts import Concepts
from dataset.tasks.expressions import Expressions
from dataset.tasks.galleries import GallerySource, by_language
from engine.config.schema import PretrainConfig
from engine.evaluators import (
    Evaluator,
    GroundingEvaluator,
    Inputs,
    OrderEvaluator,
    PhraseEvaluator,
    Probes,
    RegionPictures,
    retrieval_evaluator,
)
from engine.finish import finish
from engine.launch import launch
from engine.tasks import make_task, open_streams
from engine.trainer import Engine


def main(config: PretrainConfig, output_dir: Path) -> None:
    """Train all streams together, then measure without fine-tuning where the config names held-out data."""
    engine = Engine(config, output_dir)
    inputs = Inputs.of(config, engine.device, engine.interruption)
    streams = open_streams(config, inputs.tokenizer)
    probes: dict[str, Evaluator] = {}
    order, grounding, frames = config.evaluation.order, config.evaluation.grounding, config.model.vision.frames
    for name, retrieval in (("retrieval", config.evaluation.retrieval), ("videos", config.evaluation.videos)):
        if retrieval is not None:
            root = Path(retrieval.image_root)
            sources = {language: GallerySource(Path(file), root) for language, file in by_language(retrieval.file).items()}
            probes[name] = retrieval_evaluator(sources, inputs, retrieval)
    if order is not None and frames is not None:
        probes["order"] = OrderEvaluator(order, inputs, frames)
    if grounding is not None:
        probes["grounding"] = GroundingEvaluator(Expressions((grounding.file,), Path(grounding.image_root)), inputs, grounding)
    else:
        boxed = [name for name, stream in config.streams.items() if stream.objectives.get("box", 0.0) > 0]
        probes |= {name: RegionPictures(streams[name], inputs, config.seed) for name in boxed}
    phrases = config.evaluation.phrases
    if phrases is not None:
        stream = next(iter(streams.values()))
        assert isinstance(stream, Concepts), "the config was checked"
        probes["phrases"] = PhraseEvaluator(stream, inputs, phrases)
    task = make_task(config)
    engine.initialize(task.model)
    evaluator = Probes(probes) if probes else None
    engine.fit(task, streams, evaluator)
    finish(engine, evaluator, config)


if __name__ == "__main__":
    launch(main, "pretrain")
