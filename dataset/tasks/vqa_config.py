"""Settings of the data of question answering."""

from dataset.config import AugmentationConfig, FrameChanges, Positive, TaskData, VideoDecoder
from dataset.text import Punctuation


class VqaData(TaskData):
    """Questions about images or clips, in any of the published layouts (dataset/tasks/vqa_files.py)."""

    validation: str | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """JSON file with answers; the best checkpoint is chosen on it. null: the last one is kept, as where all answers are trained on."""
    test: str | dict[str, str]  # pyright: ignore[reportIncompatibleVariableOverride]
    """JSON file, or several by name, such as one for each language. With answers it is scored; in any case its predictions are written for
    the benchmark's server."""
    image_roots: dict[str, str] = {}
    """Folders of images for records whose `dataset` has this name, such as {vg: data/vg}; all others are under image_root."""
    answers: str | None = None
    """JSON file of the answers to rank or to choose from: a list, or a mapping answer -> number. Writing answers freely needs none."""
    max_test_words: Positive = 50
    """Questions of validation and test are cut to this many words; those of training to max_words."""
    punctuation: Punctuation = "space"
    """What becomes of punctuation in questions: X2-VLM, CCLM and X-FM put a space, X-VLM deletes it."""
    augmentation: AugmentationConfig = AugmentationConfig(crop_scale=(0.5, 1.0), careful_flip=True)
    """careful_flip looks at questions and answers."""
    frame_changes: FrameChanges = "clip"
    """Of clips, see there."""
    decoder: VideoDecoder = "auto"
    """Of clips, see there."""

    @property
    def tests(self) -> dict[str, str]:
        """What names each test set among the splits: test, or test/NAME, by name; a single one has none."""
        return {"": "test"} if isinstance(self.test, str) else {name: f"test/{name}" for name in self.test}

    def file_of(self, split: str) -> str | None:
        """The file of validation, test or test/NAME."""
        kind, _, name = split.partition("/")
        return self.validation if kind == "validation" else self.test if isinstance(self.test, str) else self.test[name]
