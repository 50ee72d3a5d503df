"""Pre-train on images and regions. `python run.py --task pretrain --config ...` launches it on any number of GPUs."""

from pathlib import Path

from dataset.streams.build import build_stream
from dataset.tasks.galleries import GallerySource
from engine.config.schema import PretrainConfig
from engine.evaluators import Evaluator, GroundingEvaluator, Inputs, Probes, RegionPictures, RetrievalEvaluator
from engine.finish import finish
from engine.launch import launch
from engine.trainer import Engine
from models.tasks.pretrain import Pretraining, StreamObjectives


def main(config: PretrainConfig, output_dir: Path) -> None:
    """Train all streams together, then measure without fine-tuning where the config names held-out data."""
    engine = Engine(config, output_dir)
    vision = config.model.vision
    inputs = Inputs.of(config, engine.device, engine.interruption)
    objectives = {
        name: StreamObjectives(stream.weight, {key: weight for key, weight in stream.objectives.items() if weight > 0})
        for name, stream in config.streams.items()
    }
    streams = {
        name: build_stream(name, stream, inputs.tokenizer, inputs.max_tokens, vision.image_size, vision.stride, config.storage)
        for name, stream in config.streams.items()
    }
    probes: dict[str, Evaluator] = {}
    retrieval, grounding = config.evaluation.retrieval, config.evaluation.grounding
    if retrieval is not None:
        probes["retrieval"] = RetrievalEvaluator(GallerySource(Path(retrieval.file), Path(retrieval.image_root)), inputs, retrieval)
    if grounding is not None:
        probes["grounding"] = GroundingEvaluator(grounding.file, grounding.image_root, inputs, grounding)
    else:
        boxed = [name for name, stream in objectives.items() if "box" in stream.objectives]
        probes |= {name: RegionPictures(streams[name], inputs, config.seed) for name in boxed}
    task = Pretraining(config.model, objectives, config.gradient_mode)
    engine.initialize(task.model)
    evaluator = Probes(probes) if probes else None
    engine.fit(task, streams, evaluator)
    finish(engine, evaluator, config)


if __name__ == "__main__":
    launch(main, "pretrain")
