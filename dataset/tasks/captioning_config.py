"""Settings of the data of captioning."""

from dataset.config import AugmentationConfig, MaskingConfig, Positive, TaskData
from dataset.text import Punctuation


class CaptionData(TaskData):
    """Images with captions. Train: [{image, caption, image_id}]; validation and test: [{image, caption: [text, ...]}] (Karpathy's split as
    published), COCO's layout with images and annotations (NoCaps), or a folder of images."""

    test: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """File or folder, or several by name. With captions it is scored; in any case its captions are written for the benchmark's server."""
    image_roots: dict[str, str] = {}
    """Folders of the images of test sets of these names; all others are under image_root."""
    prompt: str = "a picture of"
    """What every caption begins with; it is not learned and not written."""
    max_words: Positive = 30
    """Captions are cut to this many words before they are tokenized; needs normalize."""
    normalize: bool = True
    """Lower case and no punctuation before tokenizing; false: captions as they are (X2-VLM)."""
    punctuation: Punctuation = "space"
    """normalize only: a space for punctuation, or nothing (X-VLM)."""
    masking: MaskingConfig = MaskingConfig(probability=0.6, max_masks=18)
    """Where the next token is predicted at a [MASK]: for which tokens."""
    inserted: bool = True
    """Where the next token is predicted at a [MASK]: put one before each chosen token, which stays to be read by those after it (X2-VLM);
    false: in its place."""
    augmentation: AugmentationConfig = AugmentationConfig(crop_scale=(0.5, 1.0))

    @property
    def tests(self) -> dict[str, str]:
        """All test sets by name; a single one has none."""
        return {"": self.test} if isinstance(self.test, str) else self.test
