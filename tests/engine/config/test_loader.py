"""Composing a config: what wins, what is remembered, and what a user is told about a fault."""

from pathlib import Path

import pytest

from common.errors import UserError
from engine.config.loader import LoadedConfig, load_config
from engine.config.render import config_yaml
from engine.config.schema import PretrainConfig

RECIPE = """\
task: pretrain
tokenizer: {path: data/tokenizer}
streams:
  images: {kind: image_text, shards: "images-*.tar", batch_size: 32}
  regions: {kind: region_text, shards: "regions-*.tar", batch_size: 64, max_images: 32}
optimizer: {lr: 1e-4, betas: [0.9, 0.98]}
schedule: {steps: 100, warmup_steps: 10}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def pretraining(loaded: LoadedConfig) -> PretrainConfig:
    assert isinstance(loaded.config, PretrainConfig)
    return loaded.config


def fault(file: Path, *overrides: str, task: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(file, overrides, task)
    return str(caught.value)


def test_unknown_key_names_the_file_and_the_nearest_key(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("{lr: 1e-4,", "{learning_rate: 1e-4, lr: 1e-4,"))
    assert fault(recipe) == f"{recipe}: optimizer.learning_rate is not a setting. Did you mean optimizer.lr? (line 6)"


def test_unknown_key_of_an_included_file_names_that_file_and_one_on_the_command_line_the_option(recipe: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.yaml"
    model.write_text("model:\n  vision: {image_res: 48}\n")
    recipe.write_text(f"include: model.yaml\n{RECIPE}")
    assert fault(recipe) == f"{model}: model.vision.image_res is not a setting. Did you mean model.vision.image_size? (line 2)"
    model.write_text("")
    assert fault(recipe, "engine.wrokers=0") == "--set: engine.wrokers is not a setting. Did you mean engine.workers?"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("temp=0.1", "model.temperature"),
        ("lr=1", "optimizer.lr"),
        ("model.temp=1", "model.temperature"),
        ("num_workers=1", "engine.workers"),
        ("streams.regions.mask_prob=0.2", "streams.regions.masking.probability"),
        ("streams.images.augmentation.careful_hflip=true", "streams.images.augmentation.careful_flip"),
        ("schedular.epochs=3", "schedule"),
        ("epochs=3", "schedule.epochs"),
        ("streams.regions.max_image=3", "streams.regions.max_images"),
    ],
)
def test_names_of_other_projects_lead_to_the_setting_here(recipe: Path, written: str, meant: str) -> None:
    assert fault(recipe, written).endswith(f"Did you mean {meant}?")


def test_key_unlike_any_other_is_answered_with_the_known_ones(recipe: Path) -> None:
    assert fault(recipe, "report.qqq=1") == "--set: report.qqq is not a setting. Known in report: published, samples."


def test_all_faults_are_listed_one_line_each(recipe: Path) -> None:
    assert fault(recipe, "engine.precision=fp3", "optimizer.lr=fast", "seed=-1").splitlines() == [
        "--set: seed must be at least 0, not -1.",
        '--set: optimizer.lr must be a number, not "fast".',
        '--set: engine.precision must be one of fp32, bf16, not "fp3". Did you mean fp32?',
    ]


def test_missing_key_names_the_file_that_should_have_it(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("lr: 1e-4, ", ""))
    assert fault(recipe) == f"{recipe}: optimizer.lr is missing. (line 6)"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["schedule.epochs=2"], "schedule.steps and schedule.epochs are set both; keep one."),
        (["schedule.steps=null"], "schedule.steps and schedule.epochs are both unset; set one."),
        (["schedule.warmup_steps=100"], "schedule.warmup_steps is 100 and must be below schedule.steps, 100."),
        (["schedule.warmup_steps=1.5"], "1.5 is neither a whole number of steps nor a share"),
        (["optimizer.vision_lr=1e-5"], "optimizer.vision_lr needs optimizer.text_lr"),
        (["streams.images.objectives={box: 1}"], "box is not an objective of this stream; it has itc, itm, mlm"),
        (["streams.images.objectives.itc=-1"], "must not be negative"),
        (["streams.images.kind=video"], 'streams.images.kind is "video"; it is one of image_text, region_text, concepts.'),
        (["streams={images: {batch_size: 3}, regions: null}", "streams.images.kind=null"], "streams.images.kind"),
        (["streams.images=null", "streams.regions=null"], "streams is empty"),
        (
            ["streams.regions=null", "evaluation.grounding={file: f, image_root: r}"],
            "evaluation.grounding needs a stream with the box objective",
        ),
        (["model.vision.patch_size=15"], "image_size 224 is not a multiple of patch_size 15"),
    ],
)
def test_impossible_combinations_are_refused(recipe: Path, overrides: list[str], said: str) -> None:
    assert said in fault(recipe, *overrides)


def test_scientific_notation_is_a_number_and_text_is_none(recipe: Path) -> None:
    assert pretraining(load_config(recipe, ["optimizer.eps=1e-7", "optimizer.lr=3E-5"])).optimizer.eps == 1e-7
    assert "must be a number" in fault(recipe, 'optimizer.lr="quick"')


def test_own_keys_go_before_included_ones_later_includes_before_earlier_and_set_before_all(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.yaml").write_text("include: ../base.yaml\nengine: {workers: 5, log_every: 5}\nseed: 5")
    (tmp_path / "base.yaml").write_text("engine: {workers: 4, log_every: 4, checkpoint_every: 4}\nreport: {samples: 4}")
    (tmp_path / "two.yaml").write_text("engine: {log_every: 6, keep_checkpoints: 6}")
    recipe.write_text(f"include: [sub/one.yaml, two.yaml]\nengine: {{keep_checkpoints: 7, accumulation: 7}}\n{RECIPE}")
    loaded = load_config(recipe, ["engine.accumulation=8", "engine.accumulation=9"])
    engine = loaded.config.engine
    assert (engine.checkpoint_every, engine.workers, engine.log_every, engine.keep_checkpoints, engine.accumulation) == (4, 5, 6, 7, 9)
    assert (loaded.config.seed, loaded.config.report.samples) == (5, 4)
    assert {Path(source).name for source in loaded.sources("engine")} == {"base.yaml", "one.yaml", "two.yaml", "recipe.yaml", "--set"}


def test_lists_are_replaced_and_mappings_merged(recipe: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("include: recipe.yaml\noptimizer: {betas: [0.5, 0.6]}\nstreams: {regions: null}")
    config = pretraining(load_config(child))
    assert config.optimizer.betas == (0.5, 0.6)
    assert config.optimizer.lr == 1e-4
    assert list(config.streams) == ["images"]  # a stream set to null is left out


def test_include_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml")
    (tmp_path / "b.yaml").write_text("include: a.yaml")
    text = fault(tmp_path / "a.yaml")
    assert "circle" in text
    assert str(tmp_path / "b.yaml") in text


def test_one_file_may_be_included_twice_by_different_ways(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: 3")
    (tmp_path / "one.yaml").write_text("include: base.yaml")
    recipe.write_text(f"include: [one.yaml, base.yaml]\n{RECIPE}")
    assert load_config(recipe).config.seed == 3


def test_missing_include_names_both_files_and_a_similar_one(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "x2vlm_tiny.yaml").write_text("")
    recipe.write_text(f"include: x2vlm_tny.yaml\n{RECIPE}")
    text = fault(recipe)
    assert text.startswith(f"{recipe}: include names a file that does not exist")
    assert text.endswith("Did you mean x2vlm_tiny.yaml?")


@pytest.mark.parametrize("text", ["a: [1, 2", "a: 1\na: 2", "- 1", "a: !!python/object:os.system {}", "a: *nothing", "\tx: 1"])
def test_files_that_are_not_plain_yaml_mappings_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    said = fault(file)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said


def test_variables_are_filled_in_and_can_be_set(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.write_text(
        RECIPE.replace("data/tokenizer", '"${data}/tokenizer"').replace("steps: 100", 'steps: "${length}"')
        + "variables: {root: there, data: '${root}/data', length: 200}\n"
    )
    config = load_config(recipe).config
    assert config.tokenizer.path == "there/data/tokenizer"
    assert config.schedule.steps == 200
    assert load_config(recipe, ["variables.root=here"]).config.tokenizer.path == "here/data/tokenizer"
    monkeypatch.setenv("MULTIGRAIN_TEST_PLACE", "elsewhere")
    assert load_config(recipe, ["variables.data=${MULTIGRAIN_TEST_PLACE}"]).config.tokenizer.path == "elsewhere/tokenizer"


def test_unknown_variables_name_file_and_key_and_the_nearest_variable(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("data/tokenizer", '"${dta}/tokenizer"') + "variables: {data: x}\n")
    text = fault(recipe)
    assert text.startswith(f"{recipe}: tokenizer.path: ${{dta}} is neither under variables nor in the environment. Did you mean data?")
    recipe.write_text(RECIPE + "variables: {a: '${b}', b: '${a}'}\n")
    assert "refers to itself through a -> b -> a" in fault(recipe, "tokenizer.path=${a}")


def test_wrong_overrides_say_how_to_write_them(recipe: Path) -> None:
    assert "KEY=VALUE" in fault(recipe, "optimizer.lr")
    assert "is a list; set it as a whole" in fault(recipe, "optimizer.betas.0=0.5")
    assert fault(recipe, "optimizer.betas=[1").startswith("--set optimizer.betas: not valid YAML")


def test_task_of_file_and_command_line_must_agree(recipe: Path) -> None:
    assert fault(recipe, task="retrieval") == f"{recipe}: task is pretrain, but --task is retrieval. (line 1)"
    assert "Did you mean grounding?" in fault(recipe, task="groundin")
    recipe.write_text(RECIPE.replace("task: pretrain\n", ""))
    assert "task is missing" in fault(recipe)
    assert load_config(recipe, task="pretrain").config.task == "pretrain"


def test_printed_config_names_its_files_and_loads_to_the_same_config(recipe: Path, tmp_path: Path) -> None:
    loaded = load_config(recipe, ["tokenizer.path=$${odd}", "engine.threads=3"])
    text = config_yaml(loaded.config, loaded)
    assert f"# {recipe}\noptimizer:" in text
    assert "# --set\nengine:" in text
    assert "# default\nreport:" in text
    again = tmp_path / "again.yaml"
    again.write_text(text)
    assert load_config(again).config == loaded.config
    assert loaded.config.tokenizer.path == "${odd}"


def test_recipes_of_the_project_are_valid() -> None:
    root = Path(__file__).parents[3]
    recipes = [file for file in (root / "configs").rglob("*.yaml") if "\ntask:" in file.read_text(encoding="utf-8")]
    assert recipes
    for recipe in recipes:
        load_config(recipe, ["variables.data=data"])
