"""Captioning: reading token by token, predicting at a [MASK], losses, and self-critical training."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.labels import IGNORED
from models.captioning import CaptioningModel, Prediction, Writer, interleaved, visible
from models.config import DecoderConfig, ModelConfig
from models.generation import BeamSettings
from models.objectives.captions import caption_loss, masked_caption_loss, self_critical_loss
from models.tasks.captioning import Captioning, Describer, SelfCritical, SelfCriticalSettings, WritingSettings, with_places
from ranks import run_ranks
from self_critical_ranks import gradients_are_the_mean_of_all_ranks
from task_batches import VOCABULARY, small_config

START, PROMPT, END, MASK = 2, 7, 3, 4
WRITERS: list[Writer] = ["encoders", "decoder"]
PREDICTIONS: list[Prediction] = ["causal", "masked"]


def config_of(writer: Writer, kind: str = "bert") -> ModelConfig:
    config = small_config()
    text = {"kind": kind, "pad_token_id": 1 if kind == "roberta" else 0}
    decoder = DecoderConfig(layers=1, embeddings_from="output") if writer == "decoder" else None
    return config.model_copy(update={"text": config.text.model_copy(update=text), "decoder": decoder})


def spread(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)


def model_of(writer: Writer, kind: str = "bert") -> CaptioningModel:
    model = CaptioningModel(config_of(writer, kind), writer).eval()
    spread(model)
    return model


def photographs(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def describer(prediction: Prediction) -> Describer:
    return Describer((START, PROMPT), END, MASK if prediction == "masked" else None)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_writing_token_by_token_sees_what_reading_the_whole_sees(writer: Writer, prediction: Prediction, kind: str) -> None:
    model, who = model_of(writer, kind), describer(prediction)
    images = model.encode_images(photographs())
    captions = torch.randint(8, VOCABULARY, (4, 5), generator=torch.Generator().manual_seed(2))  # two of each image
    whole = who.scores(model, images, captions.view(2, 2, 5)).view(4, 5)
    reader = model.reader(images, who.mask)
    logits = reader.step(who.prompts(images))
    rows = torch.tensor([0, 0, 1, 1])
    reader.reorder(rows)
    found = [logits[rows]]
    found += [reader.step(captions[:, place : place + 1]) for place in range(4)]
    steps = torch.stack(found, dim=1).log_softmax(dim=-1).gather(2, captions[..., None])[..., 0]
    torch.testing.assert_close(steps, whole, atol=2e-5, rtol=1e-4)


def test_a_mask_that_was_put_in_is_seen_by_itself_alone_and_nothing_sees_what_follows() -> None:
    ids, places, inserted, positions = interleaved(torch.tensor([[START, PROMPT]]), torch.tensor([[9, 10]]), MASK)
    assert ids.tolist() == [[START, PROMPT, MASK, 9, MASK, 10]]
    assert places.tolist() == [[0, 1, 2, 2, 3, 3]]
    assert positions.tolist() == [[2, 4]]
    assert visible(inserted)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 0, 1],
    ]


def test_smoothed_losses_are_those_of_their_definitions() -> None:
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[4, 9, IGNORED], [1, 7, 5]])
    known, scores = labels != IGNORED, logits.log_softmax(dim=-1)
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(caption_loss(logits, labels, 0.0, "exact"), plain)
    own, excluded = F.one_hot(labels.clamp(min=0), 11).bool(), torch.tensor([2])
    causal = torch.where(own, 0.9, 0.1 / 11).double()
    wanted = -(causal * scores).sum(dim=-1)[known].mean()
    torch.testing.assert_close(caption_loss(logits, labels, 0.1, "exact"), wanted)
    masked = torch.where(own, 0.9, 0.1 / 9).double().index_fill(2, excluded, 0.0)
    divergence = torch.where(masked > 0, masked * (masked.clamp(min=1e-9).log() - scores), 0.0).sum(dim=-1)[known].mean()
    torch.testing.assert_close(masked_caption_loss(logits, labels, 0.1, excluded, "exact"), divergence, atol=1e-5, rtol=1e-5)


def test_a_stream_of_whole_captions_predicts_every_token_but_the_first() -> None:
    ids = torch.tensor([[START, 8, 9, END], [START, 8, END, 0]])
    batch = with_places({"text_ids": ids, "text_mask": ids != 0})
    assert batch["predict_labels"].tolist() == [[8, 9, END], [8, END, IGNORED]]
    task = Captioning(config_of("encoders"), WritingSettings(smoothing=0.0), "exact")
    spread(task.model)
    task.eval()
    loss = task({"train": {"image": photographs(), "text_ids": ids, "text_mask": ids != 0}})["train/caption"]
    longer = F.pad(ids, (0, 3))
    padded = task({"train": {"image": photographs(), "text_ids": longer, "text_mask": longer != 0}})["train/caption"]
    torch.testing.assert_close(loss, padded)


class Likes:
    """Rewards captions for each token 9 in them."""

    def __init__(self, prediction: Prediction) -> None:
        self.describer = describer(prediction)
        self.asked: list[list[int]] = []

    def __call__(self, tokens: Tensor, images: Tensor) -> Tensor:
        self.asked.append(images.tolist())
        return (tokens == 9).float().sum(dim=2)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("prediction", "baseline"), [("causal", "greedy"), ("masked", "samples")])
def test_self_critical_training_makes_what_is_rewarded_likelier(writer: Writer, prediction: Prediction, baseline) -> None:
    torch.manual_seed(0)
    reward = Likes(prediction)
    drawing = SelfCriticalSettings(samples=8, baseline=baseline, max_length=4)
    task = SelfCritical(config_of(writer), WritingSettings(writer, prediction), "exact", drawing, reward)
    spread(task.model)
    batch = {"image": photographs(), "image_index": torch.tensor([5, 3])}
    optimizer = torch.optim.Adam([parameter for parameter in task.parameters() if parameter.requires_grad], lr=3e-3)
    earned = []
    for _ in range(25):
        loss = task({"train": batch})["train/caption"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            images = task.model.encode_images(batch["image"])
            drawn = reward.describer.draw(task.captioning, images, 32, 4, 1.0)
            earned.append(float((drawn.tokens == 9).float().sum(dim=2).mean()))
    assert reward.asked[0] == [5, 3]
    assert sum(earned[-3:]) / 3 > sum(earned[:3]) / 3 + 0.3
    idle = {name.split(".")[0] for name, parameter in task.model.named_parameters() if parameter.grad is None}
    assert idle == ({"text", "fusion"} if writer == "decoder" else set())


def test_the_gradient_of_a_reward_is_that_of_log_probabilities_times_what_was_earned_beyond_the_baseline() -> None:
    scores = torch.randn(1, 2, 3, requires_grad=True)
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    self_critical_loss(scores, mask, torch.tensor([[2.0, -1.0]])).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[[-0.5, -0.5, 0.0], pytest.approx([1 / 6] * 3)]]


def test_a_decoder_starts_from_the_fusion_encoder_and_its_head() -> None:
    config = config_of("decoder")
    names = {
        "fusion.layers.0.self_attention.query.weight": torch.empty(16, 16),
        "fusion.layers.0.cross_attention.key.weight": torch.empty(16, 16),
        "mlm_head.decoder": torch.empty(VOCABULARY, 16),
        "mlm_head.bias": torch.empty(VOCABULARY),
    }
    starts = CaptioningModel(config, "decoder").adopt(names)
    assert starts["decoder.layers.0.cross_attention.key.weight"] == "fusion.layers.0.cross_attention.key.weight"
    assert starts["decoder.embeddings.words.weight"] == "mlm_head.decoder"
    assert starts["decoder.head.bias"] == "mlm_head.bias"


@pytest.mark.parametrize("writer", WRITERS)
def test_attention_maps_show_where_each_token_looks(writer: Writer) -> None:
    model = model_of(writer)
    maps = model.attention_maps(model.encode_images(photographs()), torch.tensor([[START, PROMPT, 9], [START, PROMPT, 10]]))
    assert maps.shape == (2, 2, 3, 5)  # two heads, three tokens, four patches and the global token
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 2, 3))


def test_beams_of_one_image_do_not_see_another() -> None:
    model, who = model_of("encoders"), describer("masked")
    images = model.encode_images(photographs(3))
    together = who.write(model, images, BeamSettings(3, 5))
    for number in range(3):
        alone = who.write(model, images[number : number + 1], BeamSettings(3, 5))
        torch.testing.assert_close(alone.scores, together.scores[number : number + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_gradients_of_rewards_are_summed_over_ranks() -> None:
    run_ranks(gradients_are_the_mean_of_all_ranks, [2])
