"""Small trainings that together reach every part of a training that runs on a device."""

import numpy as np
import torch

from voctrain import attack, classify, segment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.self_training import Unlabeled, with_pseudo_labels

TINY = {"image_size": 32, "batch_size": 4, "epochs": 2, "lr": 1e-3}
VARIED = {"rotation": 20.0, "perspective": 0.2, "crop_scale": 0.5, "brightness": 0.3, "contrast": 0.3, "vflip": 0.5}
COLORED = VARIED | {"saturation": 0.3, "hue": 0.1, "grayscale": 0.1, "translate": 0.1, "zoom": 0.1, "shear": 5.0}
PROBE = {"architecture": "tf_efficientnet_lite0", "weights": "imagenet", "head_init": "probe", "crop_scale": 0.5}

SETUPS = {  # task and options
    "flips": ("classify", {}),
    "crops": ("classify", {"crop_scale": 0.5}),
    "all augmentations": ("classify", COLORED | {"num_ops": 5, "one_color": True}),
    "fine-tuning": ("classify", PROBE | {"freeze": 0.5, "layer_decay": 0.8, "dropout": 0.2, "drop_path": 0.1}),
    "mixing, average, focal": ("classify", {"mixup": 0.4, "cutmix": 1.0, "ema_memory": 0.9, "loss": "focal"}),
    "masks, asymmetric": ("classify", {"mask_loss": 1.0, "loss": "asymmetric", "optimizer": "adam"}),
    "places": ("classify", {"architecture": "test_resnet", "mask_loss": 1.0, "mask_pooling": True}),
    "auxiliary outputs": ("classify", {"architecture": "googlenet"}),
    "weights, clipping": ("classify", {"loss": "bce_weight", "clip_norm": 1.0, "clip_value": 0.1, "aug_repeats": 2}),
    "adagrad, plateau": ("classify", {"optimizer": "adagrad", "schedule": "plateau", "sampling": "weighted"}),
    "sgd, cap": ("classify", {"optimizer": "sgd", "reduction": "sum", "pos_weight_cap": 5.0, "micro_batch": 2}),
    "float16, average": ("classify", {"precision": "float16", "ema_memory": 0.9, "clip_norm": 1.0}),
    "float16, adagrad": ("classify", {"precision": "float16", "optimizer": "adagrad"}),
    "soft labels": ("classify", {"crop_scale": 0.5, "sampling": "oversample"}),
    "focus, paste": ("segment", COLORED | {"crop_focus": 0.5, "copy_paste": 0.5, "class_balance": 0.5}),
    "dice": ("segment", {"loss": "cross_entropy+dice"}),
    "lovasz": ("segment", {"loss": "cross_entropy+lovasz", "crop_scale": 0.5}),
    "object_cross_entropy": ("segment", {"loss": "object_cross_entropy"}),
    "bce": ("segment", {"loss": "bce"}),
    "auxiliary maps": ("segment", {"architecture": "fcn_resnet50", "width": None, "depth": None}),
    "linear maps": ("segment", PROBE | {"architecture": "linear/tf_efficientnet_lite0", "width": None, "depth": None}),
    "pseudo-labels": ("segment", {"crop_scale": 0.5, "crop_focus": 0.5, "precision": "float16"}),
    "residual, penalties": ("attack", VARIED | {"ssim_penalty": 1.0, "l2_penalty": 1.0, "contrast_masking": 0.5}),
    "guided": ("attack", {"architecture": "guided", "goal": "invert"}),
    "universal": ("attack", {"architecture": "universal", "activation": None, "width": None, "goal": "hide:dog"}),
    "privacy": ("attack", {"architecture": "mnist_adversarial", "width": None, "goal": "privacy", "ssim_penalty": 1.0}),
    "float16, add": ("attack", {"goal": "add:cat", "precision": "float16", "ema_memory": 0.9}),
}
TASKS = {
    "classify": (classify, ClassifyConfig, {"architecture": "resnet9"}),
    "segment": (segment, SegmentConfig, {"width": 4, "depth": 2}),
    "attack": (attack, AttackConfig, {"width": 4, "scale": 0.1}),
}


def small(task, victim=None, **options):
    """The module of a task and a small configuration; victim: the path of an attack's."""
    module, kind, known = TASKS[task]
    known = known | ({"victim": str(victim)} if task == "attack" else {})
    return module, kind(**(TINY | known | options))


def save_victim(path, data, **options):
    """Train a classifier and save it like a run's best.pt."""
    module, config = small("classify", architecture="simple", **options)
    for epoch in module.train(config, data):
        saved = module.checkpoint(config, data, epoch.weights, epoch.metrics)
    torch.save(saved | {"thresholds": [0.4] * len(data.classes)}, path)


def data_of(name, data):
    """The data of a setup: with pseudo-labels where its name says so."""
    kinds = {"soft labels": {"soft": np.full((4, 3), 0.3, np.float32)}, "pseudo-labels": {"masks": data.masks[:4]}}
    if name not in kinds:
        return data
    new = Unlabeled(tuple("abcd"), data.images[:4], None, data.sizes[:4])
    return with_pseudo_labels(data, new, data.labels[:4], **kinds[name])
