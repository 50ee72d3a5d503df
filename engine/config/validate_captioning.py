"""What `validate` checks of captioning."""

from collections.abc import Iterator
from pathlib import Path

from dataset.tasks.captioning_files import read_described
from dataset.tasks.retrieval import ImageFiles
from engine.config.captioning import CaptioningConfig


def caption_sets(config: CaptioningConfig) -> Iterator[str]:
    """Open the evaluation sets, and read the first and last image of each."""
    data = config.data
    if data is None:
        return
    files = {"data.validation": (data.validation, data.image_root)}
    for name, path in data.tests.items():
        files[f"data.test.{name}" if name else "data.test"] = (path, data.image_roots.get(name, data.image_root))
    for key, (path, root) in files.items():
        described = read_described(Path(path))
        images = ImageFiles([Path(root) / one.image for one in described], config.model.vision.image_size, data.max_pixels)
        for number in {0, len(images) - 1}:
            images[number]
        known = all(one.captions for one in described)
        yield f"{key}: {len(described):,} images {'with captions' if known else 'without captions: ours are written, nothing is scored'}"
