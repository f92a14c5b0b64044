"""The script that trains a configuration of the segmenter, for people who take it from here."""

from search.tasks.script import Script
from voctrain.config import SegmentConfig


def script(config: SegmentConfig) -> Script:
    """A training script of this configuration."""
    terms, start, probe = "", "", {}
    if config.head_init == "probe":
        start = "start_from_pixel_probe(model, config, data, device)\n"
        probe = {"voctrain.pixel_probe": "start_from_pixel_probe"}
    if config.aux_weight:
        terms = "\nloss = loss + config.aux_weight * sum(criterion(a, target) for a in auxiliary)"
    return Script(
        {
            "voctrain.device_array": "DeviceArray",
            "voctrain.images": "pixel_counts, to_unit, training_arrays",
            "voctrain.losses.segmentation": "MaskLoss",
            "voctrain.metrics.segmentation": "confusion, mask_metrics",
            "voctrain.models.auxiliary": "outputs_of",
            "voctrain.sampling": "sampling_pool",
            "voctrain.segment": "class_rarity, predict, vary, with_masks",
            **probe,
        },
        setup=f"data = with_masks(data)  # images without a mask teach nothing\n{start}"
        "images, masks = (DeviceArray(part, device) for part in training_arrays(data, config))\n"
        "num_classes = 1 + len(data.classes)  # background first\n"
        "criterion = MaskLoss(config, pixel_counts(data.masks, data.train, num_classes)).to(device)\n"
        "rarity = class_rarity(data).to(device)\n"
        "train, truth = torch.tensor(data.train), torch.tensor(data.masks[data.val])\n"
        "pool = sampling_pool(data.labels[data.train], config, data.classes)",
        draw="train[pool.draw()]",
        loss="batch, target = vary(to_unit(images[index]), masks[index], config, rarity)\n"
        f"logits, *{'auxiliary' if terms else '_'} = outputs_of(model(batch))\n"
        f"loss = criterion(logits, target){terms}",
        score="maps = predict(evaluated, data.images[data.val], config, device=device)\n"
        "maps = torch.stack([torch.from_numpy(label_map) for label_map in maps])\n"
        "metrics = mask_metrics(confusion(truth, maps, num_classes).numpy())",
    )
