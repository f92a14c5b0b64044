"""Fine-tuning: how deep each layer of a pretrained network is, and which layers stay as they are.

Depth is counted as if every network had `LAYERS` layers with equally many modules, so that a layer-wise decay means the
same for all.
"""

import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from voctrain.config import LabeledConfig
from voctrain.models.normalized import Normalized

LAYERS = 12
DROP_PATHS = ("drop_path", "drop_path1", "drop_path2")  # attributes of timm's residual blocks


def layers(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter of the backbone of `model`, by name, from 0 at the input to `LAYERS` - 1."""
    prefixes = model.backbone if isinstance(model, Normalized) else ()
    names = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    modules = {module: i for i, module in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in names))}
    return {name: modules[name.rpartition(".")[0]] * LAYERS // len(modules) for name in names}


def fine_tune(model: Normalized, config: LabeledConfig) -> None:
    """Freeze what the configuration wants to stay as it is, and let training drop inputs and residual blocks."""
    frozen = {name for name, layer in layers(model).items() if layer < round(config.freeze * LAYERS)}
    norms = {
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and (f"{name}.weight" in frozen or (config.freeze_norm and f"{name}.".startswith(model.backbone)))
    }
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    model.frozen_norms = tuple(sorted(norms))
    for name in model.last_layers if config.dropout else ():
        model.net.get_submodule(name).register_forward_pre_hook(Dropout(config.dropout))
    if config.drop_path:
        _drop_paths(model, config)


def _drop_paths(model: Normalized, config: LabeledConfig) -> None:
    """Stochastic depth (Huang et al., 2016), with a probability that rises linearly from block to block."""
    modules = model.net.modules()
    blocks = [m for m in modules if isinstance(m, StochasticDepth) or any(hasattr(m, name) for name in DROP_PATHS)]
    if not blocks:
        raise ValueError(
            f"drop_path requires a network whose residual blocks can be dropped, but {config.architecture} has none:"
            " use another of timm's, or omit drop_path"
        )
    for number, block in enumerate(blocks):
        probability = config.drop_path * number / max(1, len(blocks) - 1)
        if isinstance(block, StochasticDepth):
            block.p = probability
        for name in DROP_PATHS:
            if hasattr(block, name):
                setattr(block, name, DropPath(probability))


class Dropout:
    """A hook that drops inputs of a module while it trains."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (F.dropout(inputs[0], self.probability, module.training),)


def learning_rate_factor(layer: int | None, config: LabeledConfig) -> float:
    """By which the learning rate of a parameter is multiplied; layer: None in the head."""
    return config.head_lr if layer is None else config.layer_decay ** (LAYERS - layer)
