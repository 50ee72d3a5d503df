"""CLIP's vision transformer behind the vision contract. Being written."""

from models.config import ClipVitConfig
from models.vision.encoder import VisionEncoder


class ClipVit(VisionEncoder):
    """See `VisionEncoder`."""

    def __init__(self, config: ClipVitConfig) -> None:
        super().__init__()
        raise NotImplementedError
