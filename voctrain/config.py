"""Every hyperparameter of a trial, with its default, its valid values and its meaning.

A configuration is a frozen dataclass that validates itself. An unknown key, a value out of range, or a conditional
field whose parent does not have the required value raises `ValueError` with the rule, the value and the valid values.
"""

import dataclasses
import difflib
import fnmatch
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

# Keys of a field's metadata: its allowed values; its bounds; its parent field, the parent's values that it requires,
# and its default with them.
CHOICES, BOUNDS, NEEDS = "choices", "bounds", "needs"
RESIZE = ("squash", "pad", "crop")  # how images become squares, see voctrain/data/resizing.py

T = TypeVar("T")


def choice(default: str, *others: str) -> Any:
    """A string field with these allowed values."""
    return field(default=default, metadata={CHOICES: (default, *others)})


def number(default: float | None, low: float, high: float = math.inf) -> Any:
    """A number in [low, high], inclusive. With a default of None, None is allowed and turns the feature off."""
    return field(default=default, metadata={BOUNDS: (low, high)})


def only_with(
    parent: str,
    values: tuple[str, ...],
    default: Any,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A conditional field: `default` if `parent` has one of `values` (patterns with *), None otherwise."""
    bounds = {} if isinstance(default, str | None) else {BOUNDS: (low, high)}
    bounds |= {CHOICES: choices} if choices else {}
    return field(default=None, metadata={NEEDS: (parent, values, default), **bounds})


def given(value: T | None) -> T:
    """The value of a conditional field where its parent guarantees that there is one."""
    assert value is not None
    return value


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The fields that all tasks share: optimization, schedule, augmentation, seed and precision."""

    seed: int = number(0, 0)
    epochs: int = number(27, 1)
    image_size: int = number(300, 28)  # side of the square images, in pixels
    batch_size: int = number(32, 1)
    micro_batch: int | None = number(None, 2)  # at most this many images at a time; a batch's gradients are accumulated
    precision: str = choice("auto", "float32", "bfloat16", "float16")  # auto: see voctrain.precision.precision_of
    deterministic: bool = False  # on CUDA, compute the same bits each time, but more slowly; CPUs always do

    optimizer: str = choice("adamw", "adam", "sgd", "adagrad")
    lr: float = number(1e-3, 0)  # peak learning rate of the schedule; with linear, the initial one
    momentum: float | None = only_with("optimizer", ("sgd",), 0.9, 0, 1)
    weight_decay: float = number(1e-4, 0)  # decoupled with adamw, else an L2 penalty that the gradients contain
    decay_norms: bool = False  # also of biases and normalization
    clip_norm: float | None = number(None, 0)  # maximum L2 norm of the gradients
    clip_value: float | None = number(None, 0)  # gradients are clamped to ± this value
    ema_memory: float | None = number(None, 0, 1)  # of the weight average that is evaluated, in parts of the training

    schedule: str = choice("one_cycle", "cosine", "step", "plateau", "linear", "constant", "replay")
    warmup_epochs: float = number(0.0, 0)  # linear from 1% of lr; not for one_cycle (which warms up) or replay
    div_factor: float | None = only_with("schedule", ("one_cycle",), 25.0, 1)  # the initial lr is lr / div_factor
    step_epochs: int | None = only_with("schedule", ("step",), 9, 1)  # epochs between two drops
    gamma: float | None = only_with("schedule", ("step", "plateau"), 0.1, 0, 1)  # factor of each drop
    plateau_patience: int | None = only_with("schedule", ("plateau",), 2, 0)  # epochs without a better score
    end_factor: float | None = only_with("schedule", ("linear",), 0.01, 0)  # the final lr is lr · end_factor
    lr_by_epoch: tuple[float, ...] | None = only_with("schedule", ("replay",), None)  # a recorded schedule

    patience: int | None = number(None, 1)  # early stopping: epochs without a better score; None never stops

    aug_repeats: int = number(1, 1)  # times each image is in its batch, each time augmented anew (Hoffer et al., 2020)
    hflip: float = number(0.5, 0, 1)  # probabilities of the flips
    vflip: float = number(0.0, 0, 1)
    rotation: float = number(0.0, 0, 180)  # ± degrees
    translate: float = number(0.0, 0, 1)  # ± this fraction of the side
    zoom: float = number(0.0, 0, 0.9)  # by a factor in [1 - zoom, 1 + zoom]
    shear: float = number(0.0, 0, 80)  # ± degrees
    perspective: float = number(0.0, 0, 1)  # corners move inward by up to half of this fraction of the side
    crop_scale: float = number(1.0, 0.01, 1)  # minimum area fraction of a random resized crop; 1: no crop
    brightness: float = number(0.0, 0, 1)  # this and the next two: by a factor in [1 - x, 1 + x]
    contrast: float = number(0.0, 0, 1)
    saturation: float = number(0.0, 0, 1)
    hue: float = number(0.0, 0, 0.5)  # ± this fraction of the color circle
    grayscale: float = number(0.0, 0, 1)  # probability
    one_color: bool = False  # either brightness or grayscale per image, never both
    num_ops: int | None = number(None, 1)  # at most this many of the augmentations per image, chosen at random

    def __post_init__(self) -> None:
        names = {f.name: f for f in dataclasses.fields(self)}
        hints = typing.get_type_hints(type(self))
        for name, f in names.items():
            if NEEDS in f.metadata:
                parent, values, default = f.metadata[NEEDS]
                if _matches(getattr(self, parent), values):
                    if getattr(self, name) is None:
                        object.__setattr__(self, name, default)
                elif getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} requires {parent}={'|'.join(values)}, but {parent} is {getattr(self, parent)!r}:"
                        f" omit {name} or set {parent}={values[0]}"
                    )
            object.__setattr__(self, name, _checked(name, getattr(self, name), hints[name], f.metadata))
        if self.warmup_epochs and self.schedule in ("one_cycle", "replay"):
            raise ValueError(f"warmup_epochs must be 0 with schedule={self.schedule}, but got {self.warmup_epochs}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs={self.epochs}, but got {self.warmup_epochs}")
        if self.schedule == "replay" and len(self.lr_by_epoch or ()) < self.epochs:
            raise ValueError(
                f"lr_by_epoch must have epochs={self.epochs} values, but got {len(self.lr_by_epoch or ())}"
            )
        if self.schedule == "replay" and not self.lr:
            raise ValueError("lr must be above 0 with schedule=replay, which scales its rates by it: omit lr")
        if self.one_color and not (self.brightness and self.grayscale):
            raise ValueError("one_color requires brightness and grayscale above 0: set both or omit one_color")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration with these values. Raises `ValueError` for an unknown key or an invalid value."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {close[0]}?" if close else "valid keys: " + ", ".join(known)
                raise ValueError(f"unknown configuration key {key!r}: {hint}")
        return cls(**values)

    @classmethod
    def applies(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Whether `values` allow field `name`: its parent has a required value there, or is not set there."""
        known = {f.name: f.metadata for f in dataclasses.fields(cls)}
        parent, allowed, _ = known.get(name, {}).get(NEEDS, (None, (), None))
        return parent not in values or _matches(values[parent], allowed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `from_dict`, JSON and `torch.load(weights_only=True)`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class LabeledConfig(TrainConfig):
    """The fields that the tasks with labels share: the network, and the sampling of an epoch's images."""

    architecture: str = "resnet18"  # a name known to the task's build function in voctrain.models
    batch_size: int = number(32, 2)  # batch normalization needs two
    weights: str = "none"  # none, imagenet, or the path of a weights file; for segmenters also `published`

    freeze: float = number(0.0, 0, 1)  # this part of the backbone's layers, from the input on, stays as it is
    freeze_norm: bool = False  # the backbone's batch normalization keeps its statistics
    layer_decay: float = number(1.0, 0.1, 1)  # of lr from layer to layer toward the input, of 12, see fine_tuning
    head_lr: float = number(1.0, 0.01, 100)  # factor of lr for all that is not backbone
    dropout: float = number(0.0, 0, 0.9)  # probability, of the inputs of the last layer
    drop_path: float = number(0.0, 0, 0.9)  # probability, of the last residual block; rises from 0 at the input

    sampling: str = choice("shuffle", "copies", "weighted", "oversample", "undersample")  # see voctrain.sampling
    extra_copies: int | None = only_with("sampling", ("copies",), 4, 1)  # of each image, in the pool of an epoch
    copies_except: str | None = None  # with sampling=copies: the class whose images are not copied

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies_except is not None and self.sampling != "copies":
            raise ValueError(f"copies_except requires sampling=copies, but sampling is {self.sampling!r}")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(LabeledConfig):
    """Multi-label classification. The choices come from the course notebook; the losses cite their papers."""

    head_init: str = choice("random", "probe")  # probe: of the frozen features, see voctrain.probe

    loss: str = choice("bce", "bce_weight", "focal", "asymmetric")
    reduction: str = choice("mean", "sum")  # over images and classes
    label_smoothing: float = number(0.0, 0, 0.5)  # targets become y (1 - s) + s / 2
    pos_weight_cap: float | None = number(None, 1)  # positives have weight min(negatives / positives, cap); None: 1
    focal_gamma: float | None = only_with("loss", ("focal",), 2.0, 0)
    gamma_neg: float | None = only_with("loss", ("asymmetric",), 4.0, 0)
    gamma_pos: float | None = only_with("loss", ("asymmetric",), 0.0, 0)
    prob_shift: float | None = only_with("loss", ("asymmetric",), 0.05, 0, 1)  # negatives below it cost nothing

    mask_loss: float = number(0.0, 0)  # weight of the loss on masks, see models.mask_heads
    mask_pooling: bool = False  # the classes of an image also come from those of its cells, see models.mask_heads
    mixup: float = number(0.0, 0)  # alpha of its beta distribution; 0: off (Zhang et al., 2018)
    cutmix: float = number(0.0, 0)  # alpha; with mixup too, one of the two is drawn per batch (Yun et al., 2019)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pos_weight_cap is not None and self.loss not in ("bce", "focal"):
            raise ValueError(f"pos_weight_cap requires loss=bce|focal, but loss is {self.loss!r}: omit it")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(LabeledConfig):
    """Semantic segmentation. The U-Net comes from the course notebook; the losses cite their papers."""

    architecture: str = "unet"
    width: int | None = only_with("architecture", ("unet", "fpn_*"), 64, 4, 512)  # channels of the finest maps
    depth: int | None = only_with("architecture", ("unet",), 4, 1, 6)  # number of times the image is halved
    # As in `ClassifyConfig`, see voctrain.pixel_probe.
    head_init: str | None = only_with("architecture", ("linear/*",), "random", choices=("random", "probe"))

    loss: str = choice(
        "cross_entropy", "dice", "lovasz", "cross_entropy+dice", "cross_entropy+lovasz", "object_cross_entropy", "bce"
    )
    class_balance: float | None = only_with("loss", ("cross_entropy*",), 0.0, 0, 1)  # class weights ∝ frequency^-x
    pos_weight: float | None = only_with("loss", ("bce",), 10.0, 0)  # weight of a class's own pixels
    aux_weight: float | None = only_with("architecture", ("fcn_*", "deeplabv3_*"), 0.4, 0)  # of the auxiliary loss

    crop_focus: float = number(0.0, 0, 1)  # probability that a random crop must contain a pixel of an object
    copy_paste: float = number(0.0, 0, 1)  # probability that an image gets an object of its neighbor in the batch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_focus and self.crop_scale == 1:
            raise ValueError("crop_focus requires crop_scale below 1: set crop_scale or omit crop_focus")


@dataclass(frozen=True, kw_only=True)
class AttackConfig(TrainConfig):
    """A generator of perturbations that fool a classifier. The autoencoders come from the course notebook."""

    victim: str  # path of a classifier's checkpoint
    goal: str = "fake"  # see voctrain.attack.goals
    min_ssim: float = number(0.85, 0, 1)  # mean similarity to the images at which attacks are compared
    max_ssim: float | None = only_with("goal", ("privacy",), 0.5, 0.01, 0.99)  # at most: the images count as hidden

    architecture: str = "residual"  # a name known to voctrain.models.build_generator
    activation: str | None = only_with(
        "architecture",
        ("residual", "guided", "*_adversarial*"),
        "relu",
        # The leaky ReLU of the course notebook had slope 1; `identity` reproduces it.
        choices=("relu", "leaky_relu", "gelu", "sigmoid", "identity"),
    )
    middle: bool | None = only_with("architecture", ("*_adversarial*",), False)  # fully connected bottleneck
    # Channels of the first maps; in `guided`, of all maps.
    width: int | None = only_with("architecture", ("residual", "guided"), 16, 4, 128)
    contrast_masking: float = number(0.0, 0, 1)  # power of the local contrast that scales perturbations; 0: off
    scale: float = number(16 / 255, 0, 1)  # maximum change of a pixel in training, in units of [0, 1]
    fake_label: float | None = only_with("goal", ("fake",), 0.0, 0, 1)  # the target probability of every class
    l2_penalty: float = number(0.0, 0)  # weight of the perturbation's squared L2 norm
    ssim_penalty: float = number(0.0, 0)  # weight of max(0, min_ssim - similarity)


def _matches(value: Any, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(str(value), pattern) for pattern in patterns)


def _checked(name: str, value: Any, hint: Any, rules: Mapping[str, Any]) -> Any:
    """`value` converted to the field's type. Raises `ValueError` for an invalid value."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        if type(None) in kinds:
            return None
        raise ValueError(f"{name} must not be None")
    kind = next(k for k in kinds if k is not type(None))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(type(v) in (int, float) and 0 <= v < math.inf for v in value):
            raise ValueError(f"{name} must be a list of numbers of at least 0, but got {value!r}")
        return tuple(float(v) for v in value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, but got {value!r}")
    if CHOICES in rules and value not in rules[CHOICES]:
        raise ValueError(f"{name} must be one of {', '.join(rules[CHOICES])}, but got {value!r}")
    if BOUNDS in rules:
        low, high = rules[BOUNDS]
        if not low <= value <= high or not math.isfinite(value):
            rule = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
            raise ValueError(f"{name} must be {rule}, but got {value!r}")
    return value
