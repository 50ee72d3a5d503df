"""Settings of pre-training that have to do with clips and with noisy data, and how they must fit one another."""

from collections.abc import Mapping

from common.settings import Settings
from dataset.config import MatchingSettings, Positive, TrainingStream, VideoTextStream


class OrderProbe(Settings):
    """Held-out clips, each with its caption and with one that tells the same frames in another order; needs a stream with itm."""

    file: str
    """JSON file: [{image, caption, wrong, kind}]."""
    image_root: str
    """The folder that paths of clips are relative to."""
    batch_size: Positive = 64


def clip_problems(streams: Mapping[str, TrainingStream], probes: Mapping[str, object], frames: int | None) -> list[tuple[str, str]]:
    """What is wrong with streams and probes (None: not asked for) of clips, as (key, message)."""
    clips = [f"streams.{name}" for name, stream in streams.items() if isinstance(stream, VideoTextStream)]
    clips += [f"evaluation.{name}" for name, probe in probes.items() if probe is not None]
    if clips and frames is None:
        return [(clips[0], f"{clips[0]} is of clips. Set model.vision.frames to their number of frames.")]
    return []


def matching_problems(matching: MatchingSettings, objectives: Mapping[str, Mapping[str, float]], clean: set[str]) -> list[tuple[str, str]]:
    """What is wrong with steps that leave matching out.

    Args:
        matching: in which steps it is learned.
        objectives: of each stream.
        clean: names of the streams with a clean source.
    """
    if matching == MatchingSettings():
        return []
    problems = []
    if matching.clean_stream is not None and matching.clean_stream not in clean:
        text = f"matching.clean_stream: {matching.clean_stream} is no stream with a clean source."
        problems.append(("matching.clean_stream", text))
    alone = [name for name, weights in objectives.items() if weights.get("itm") and not weights.get("mlm")]
    text = "has itm without mlm; steps without matching would leave the fusion encoder out."
    return problems + [(f"streams.{name}.objectives", f"streams.{name} {text}") for name in alone]
