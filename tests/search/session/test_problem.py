import warnings
from types import SimpleNamespace

import optuna
import pytest
import torch
from torchvision import models

from search.session.dry_run import first_configurations
from search.session.problem import make_problem
from search.session.settings import load_space, parse_settings
from search.tasks import find_task
from voctrain import classify

TASK = find_task("classify")
DATA = SimpleNamespace(classes=("a", "b", "c"), masks=(), train=(), images=torch.zeros(1, 32, 32, 3))


@pytest.fixture(autouse=True)
def few_probes(monkeypatch):
    monkeypatch.setattr("search.session.problem.PROBES", 60)


def problem(space=None, weights="none", **settings):
    run = {"seed": 3, "epochs": 9, "image_size": 32}
    return make_problem(TASK, DATA, space=space, settings=settings, weights=weights, device="cpu", **run)


@pytest.fixture
def space(tmp_path):
    def write(text):
        (tmp_path / "space.py").write_text(text)
        return str(tmp_path / "space.py")

    return write


def sampled(found, number=30):
    study = optuna.create_study(
        sampler=optuna.samplers.PartialFixedSampler(found.pins, optuna.samplers.RandomSampler(1))
    )
    trials = [study.ask() for _ in range(number)]
    return [(found.config(trial), trial.params) for trial in trials]


class TestSettings:
    def test_values_are_literals_or_text(self):
        texts = [
            "lr=1e-3",
            "ema=true",
            "ema2=False",
            "mixup=0",
            "architecture=simple",
            "clip=none",
            "a=b=c",
            "l=(1, 2)",
        ]
        assert parse_settings(texts) == {
            "lr": 1e-3,
            "ema": True,
            "ema2": False,
            "mixup": 0,
            "architecture": "simple",
            "clip": None,
            "a": "b=c",
            "l": (1, 2),
        }

    @pytest.mark.parametrize("text", ["lr", "=3", ""])
    def test_a_setting_has_a_key_and_a_value(self, text):
        with pytest.raises(ValueError, match="--set takes key=value"):
            parse_settings([text])


class TestProblem:
    @pytest.mark.parametrize(
        ("pins", "expected"),
        [
            ({"mask_pooling": False}, {(False, False)}),
            ({"mask_pooling": True, "mask_loss": 0.0}, {(True, False)}),
            ({"mask_loss": 0.0}, {(True, False), (False, False)}),
            ({"mask_pooling": True, "mask_loss": 7.0}, {(True, True)}),
        ],
    )
    def test_what_masks_are_for_can_be_pinned(self, pins, expected):
        found = problem(weights="imagenet", architecture="tf_efficientnet_lite0", **pins)
        configs = [config for config, _ in sampled(found)]
        assert {(config.mask_pooling, config.mask_loss > 0) for config in configs} == expected
        assert {config.mask_loss for config in configs} <= {0.0, pins.get("mask_loss")} or "mask_loss" not in pins

    def test_every_configuration_has_the_fields_of_the_run(self):
        for config, _ in sampled(problem()):
            assert (config.seed, config.epochs, config.image_size, config.weights) == (3, 9, 32, "none")

    def test_none_is_a_choice_if_the_space_has_it(self):
        found = problem(**parse_settings(["mixing=none", "clip=none", "patience=none"]))
        assert found.pins == {"mixing": "none", "clip": "none"}
        assert found.fixed["patience"] is None

    def test_a_searched_value_is_pinned_and_its_branch_follows(self):
        found = problem(optimizer="sgd", momentum=0.85)
        assert found.pins == {"optimizer": "sgd", "momentum": 0.85}
        for config, params in sampled(found):
            assert (config.optimizer, config.momentum) == (params["optimizer"], params["momentum"]) == ("sgd", 0.85)

    def test_a_value_outside_of_the_space_is_fixed(self):
        found = problem(batch_size=7, precision="float32", schedule="constant")
        assert found.pins == {}
        for config, params in sampled(found):
            assert (config.batch_size, config.precision, config.schedule) == (7, "float32", "constant")
            assert "precision" not in params
            assert config.div_factor is config.gamma is None  # suggested for other schedules, they do not apply

    def test_a_field_set_by_two_parameters_is_fixed_for_both(self):
        optimizers = set()
        for config, _ in sampled(problem(lr=0.004)):
            assert config.lr == 0.004
            optimizers.add(config.optimizer)
        assert "sgd" in optimizers  # whose rate is another parameter
        assert len(optimizers) > 1

    def test_the_space_gets_the_fields_of_the_run(self, space):
        path = space("def suggest(trial, problem):\n    return {'architecture': 'simple', 'lr': sum(problem['tell'])}")
        text = "def suggest(trial, problem):\n    assert problem == " + repr(
            {
                **{"seed": 3, "epochs": 9, "image_size": 32, "weights": "none", "device": "cpu"},
                **{"classes": 3, "masks": True, "channels": 3},
            }
        )
        with pytest.raises(ValueError, match="KeyError: 'tell'"):
            problem(path)
        assert problem(space(text + "\n    return {'architecture': 'simple'}")).architectures == ("simple",)

    def test_architectures_are_those_that_it_may_suggest(self):
        assert problem(architecture="simple").architectures == ("simple",)
        assert set(problem().architectures) == set(TASK.space.SMALL)

    def test_a_checkpoint_determines_the_architecture(self, tmp_path):
        images = torch.zeros(2, 32, 32, 3).byte().numpy()
        data = SimpleNamespace(classes=DATA.classes, masks=(), images=images, train=[0, 1], resize="squash")
        config = TASK.config(architecture="simple", image_size=32)
        model = classify.new_model(config, data)
        torch.save(classify.checkpoint(config, data, model.state_dict(), {}), tmp_path / "best.pt")
        found = problem(weights=str(tmp_path / "best.pt"))
        assert (found.architectures, found.fixed["architecture"]) == (("simple",), "simple")
        with pytest.raises(ValueError, match="architecture=simple"):
            problem(weights=str(tmp_path / "best.pt"), architecture="complex")

    def test_the_architecture_of_a_training_script_is_taken(self, tmp_path):
        state = models.get_model("shufflenet_v2_x0_5", num_classes=3).state_dict()
        torch.save({"arch": "shufflenet_v2_x0_5", "state_dict": state}, tmp_path / "w.pt")
        found = problem(weights=str(tmp_path / "w.pt"))
        assert found.architectures == ("shufflenet_v2_x0_5",)
        line = f"w.pt: all {len(state)} tensors of shufflenet_v2_x0_5 loaded, found under 'state_dict.'"
        assert found.notes == (line,)
        assert problem().notes == ()

    def test_networks_without_published_weights_are_trained_from_scratch(self):
        found = problem(weights="imagenet", architecture="simple")
        assert found.notes == ("simple has no published weights: it is trained from scratch",)
        assert found.fixed["weights"] == found.info["weights"] == "none"
        assert all(config.weights == "none" for config, _ in sampled(found))

    def test_networks_whose_weights_are_unavailable_are_left_out(self, monkeypatch):
        def download(architecture, weights):
            if "lite0" not in architecture:
                raise ValueError(f"the weights of {architecture} are unavailable (no network): run once with one")

        monkeypatch.setattr(TASK, "download", download)
        monkeypatch.setattr(TASK.space, "FAST", ("resnet18", "tf_efficientnet_lite0", "resnet50"))
        found = problem(weights="imagenet")
        assert found.architectures == ("tf_efficientnet_lite0",)
        assert found.left_out == ("resnet18", "resnet50")
        assert found.notes == (
            "searching without resnet18, resnet50: the weights of resnet18 are unavailable (no network)",
        )
        assert {entry["architecture"] for _, entry in found.portfolio()} == {"tf_efficientnet_lite0"}
        # A continued run keeps its choices, though there is a network now.
        again = make_problem(
            TASK,
            DATA,
            space=None,
            settings={},
            weights="imagenet",
            device="cpu",
            seed=3,
            epochs=9,
            image_size=32,
            left_out=found.left_out,
        )
        assert (again.architectures, again.notes) == (found.architectures, ())
        monkeypatch.setattr(TASK.space, "FAST", ("resnet18",))
        with pytest.raises(ValueError, match="the weights of resnet18 are unavailable"):
            problem(weights="imagenet")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"epochs": 3}, "--set epochs must be given as --epochs"),
            ({"image_size": 64}, "--set image_size must be given as --image-size"),
            ({"nothing": 3}, "unknown configuration key 'nothing'"),
            ({"lr": -1}, "lr must be at least 0"),
            ({"architecture": "resnet19"}, "unknown classifier 'resnet19'"),
            ({"schedule": "cosine", "div_factor": 10.0}, "--set div_factor has no effect"),
            ({"optimizer": "adam", "momentum": 0.1}, "momentum requires optimizer=sgd"),
        ],
    )
    def test_impossible_settings_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            problem(**settings)


class TestIdleParameters:
    @pytest.mark.parametrize(
        ("settings", "idle"),
        [
            ({"ema_memory": 0.9}, {"ema", "ema_memory"}),  # above the bounds
            ({"lr": 0.0}, {"lr", "lr_sgd"}),  # below the bounds of both
            ({"lr": 0.002}, {"lr_sgd"}),  # within those of lr
            ({"weight_decay": 0.01}, {"weight_decay_l2"}),
            ({"optimizer": "sgd", "lr": 0.002}, {"lr_sgd"}),  # below it, but sgd takes lr_sgd
            ({"optimizer": "sgd", "momentum": 0.5}, {"momentum"}),
            ({"precision": "float32"}, set()),
            ({"brightness": 0.1}, set()),  # color_strength sets others, too
        ],
    )
    def test_parameters_that_only_feed_a_fixed_field_are_not_searched(self, settings, idle):
        pins = {name: value for name, value in settings.items() if name == "optimizer"}
        before = set().union(*(params for _, params in sampled(problem(**pins), 60)))
        found = problem(**settings)
        drawn = sampled(found, 60)
        assert set(found.idle) == idle
        assert set().union(*(params for _, params in drawn)) == before - idle
        for name, value in settings.items():
            assert {getattr(config, name) for config, _ in drawn} == {value}

    def test_the_portfolio_leaves_idle_parameters_out(self):
        found = problem(ema_memory=0.9)
        entries = [entry for _, entry in found.portfolio()]
        assert len(entries) == len(problem().portfolio())
        assert not any({"ema", "ema_memory"} & entry.keys() for entry in entries)


class TestPortfolio:
    def test_the_portfolio_is_complete_without_settings(self):
        names = [name for name, _ in problem().portfolio()]
        fitting = (i for i, e in enumerate(TASK.space.SCRATCH, 1) if e["architecture"] in TASK.space.SMALL)
        assert names == [f"portfolio {i}" for i in fitting]

    def test_pins_are_applied_and_recipes_that_do_not_fit_are_dropped(self):
        found = problem(architecture="simple", schedule="one_cycle")
        entries = dict(found.portfolio())
        assert entries
        assert {(e["architecture"], e["schedule"]) for e in entries.values()} == {("simple", "one_cycle")}
        for entry in entries.values():
            assert found.config(optuna.trial.FixedTrial(entry | {"div_factor": 25.0})).architecture == "simple"

    def test_recipes_outside_of_the_space_are_left_out(self, space):
        found = problem(space("def suggest(t, problem):\n    return {'lr': t.suggest_float('lr', 0.1, 0.5)}"))
        assert found.portfolio() == []
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            assert found.fitting({"lr": 0.2}) == {"lr": 0.2}
            assert found.fitting({"lr": 0.05}) is None

    def test_the_portfolio_comes_first_then_the_seeded_sampler(self):
        found = problem(architecture="simple")
        number = len(found.portfolio())
        configs = first_configurations(found, "tpe", number + 2)
        assert [c.optimizer for c in configs[:number]] == [e["optimizer"] for _, e in found.portfolio()]
        assert configs[number] != configs[number + 1]
        assert configs == first_configurations(found, "tpe", number + 2)


def test_the_task_space_is_the_default():
    assert load_space(None, TASK) is TASK.space
