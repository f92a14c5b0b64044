import json

import pytest

from voctrain.config import AttackConfig, ClassifyConfig


def test_round_trip_through_json():
    config = ClassifyConfig(schedule="replay", lr_by_epoch=(0.1, 0.2), epochs=2, optimizer="sgd")
    assert ClassifyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_conditional_fields_get_defaults_only_with_their_parent():
    assert ClassifyConfig(optimizer="sgd").momentum == 0.9
    assert ClassifyConfig(optimizer="adam").momentum is None
    assert ClassifyConfig(loss="focal").focal_gamma == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, "did you mean lr"),
        ({"nonsense_key": 1}, "valid keys: seed"),
        ({"lr": -1}, "lr must be at least 0, but got -1"),
        ({"lr": float("nan")}, "lr must be at least 0, but got nan"),
        ({"hflip": 2}, "hflip must be between 0 and 1, but got 2"),
        ({"optimizer": "lion"}, "optimizer must be one of adamw, adam, sgd, adagrad, but got 'lion'"),
        ({"epochs": 1.5}, "epochs must be of type int"),
        ({"one_color": 1}, "one_color must be of type bool"),
        ({"lr": None}, "lr must not be None"),
        ({"momentum": 0.9}, "momentum requires optimizer=sgd"),
        ({"loss": "bce", "gamma_neg": 2.0}, "gamma_neg requires loss=asymmetric"),
        ({"loss": "asymmetric", "pos_weight_cap": 2.0}, "pos_weight_cap requires loss=bce|focal"),
        ({"copies_except": "person"}, "copies_except requires sampling=copies"),
        ({"warmup_epochs": 1}, "warmup_epochs must be 0 with schedule=one_cycle"),
        ({"schedule": "cosine", "warmup_epochs": 5, "epochs": 5}, "warmup_epochs must be below epochs=5"),
        ({"schedule": "replay"}, "lr_by_epoch must have epochs=27 values, but got 0"),
        (
            {"schedule": "replay", "lr_by_epoch": 0.1},
            "lr_by_epoch must be a list of numbers of at least 0, but got 0.1",
        ),
        ({"schedule": "replay", "lr_by_epoch": [0.1, "a"]}, "lr_by_epoch must be a list of numbers of at least 0"),
        ({"schedule": "replay", "lr_by_epoch": [float("nan")]}, "lr_by_epoch must be a list of numbers of at least 0"),
        ({"schedule": "replay", "lr_by_epoch": [0.1], "epochs": 1, "lr": 0}, "lr must be above 0 with schedule=replay"),
        ({"one_color": True}, "one_color requires brightness and grayscale"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
    ],
)
def test_error_states_rule_and_value(values, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is checked below
        ClassifyConfig.from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_universal_perturbation_has_no_activation():
    assert AttackConfig(victim="run").activation == "relu"
    assert AttackConfig(victim="run", architecture="universal").activation is None
    with pytest.raises(ValueError, match="activation requires architecture=residual"):
        AttackConfig(victim="run", architecture="universal", activation="gelu")
    with pytest.raises(ValueError, match=r"activation must be one of relu, .*, but got 'swish'"):
        AttackConfig(victim="run", activation="swish")


def test_applies_checks_the_parent_of_a_field():
    assert ClassifyConfig.applies("momentum", {"optimizer": "sgd"})
    assert ClassifyConfig.applies("momentum", {})
    assert ClassifyConfig.applies("lr", {"optimizer": "adam"})
    assert not ClassifyConfig.applies("momentum", {"optimizer": "adam"})
