"""The script that trains a configuration of the classifier, for people who take it from here."""

from search.tasks.script import Script
from voctrain.config import ClassifyConfig


def script(config: ClassifyConfig) -> Script:
    """A training script of this configuration."""
    from voctrain.models.classifiers import AUXILIARY

    imports = {
        "voctrain.classify": "predict, vary",
        "voctrain.device_array": "DeviceArray",
        "voctrain.images": "to_unit, training_arrays",
        "voctrain.losses.classification": "classification_loss",
        "voctrain.metrics.classification": "classify_metrics",
        "voctrain.metrics.thresholds": "fit_thresholds",
        "voctrain.sampling": "sampling_pool",
    }
    masks, maps, terms = "", "", ""
    forward = "logits = model(batch)"
    if config.architecture in AUXILIARY:
        imports |= {"voctrain.classify": "AUXILIARY, predict, vary"}
        forward = "(logits, *auxiliary), _ = model.with_maps(batch)"
        terms += "\nloss = loss + AUXILIARY * sum(criterion(a, target) for a in auxiliary)"
    if config.mask_loss:
        imports["voctrain.losses.classification"] += ", object_cross_entropy"
        masks, maps = ", masks[index]", "\nmasks = DeviceArray(train_masks, device)"
        forward = "(logits, *auxiliary), maps = model.with_maps(batch)"
        terms += "\nmask_losses = [object_cross_entropy(m, mask) for m in maps]"
        terms += "\nloss = loss + config.mask_loss * sum(mask_losses) / len(mask_losses)"
    mask = "mask" if masks else "_"
    start = ""
    if config.head_init == "probe":
        imports["voctrain.probe"] = "start_from_probe"
        start = "start_from_probe(model, config, data, device)\n"
        if config.mask_pooling:
            imports["voctrain.pixel_probe"] = "set_pixel_probe"
            start += "set_pixel_probe(model, config, data, device)\n"
    return Script(
        imports,
        setup=f"{start}train_images, {'train_masks' if maps else '_'} = training_arrays(data, config)\n"
        "images = DeviceArray(train_images, device)"
        f"{maps}\n"
        "labels = torch.tensor(data.labels, dtype=torch.float32, device=device)\n"
        "criterion = classification_loss(config, data.labels[data.train]).to(device)\n"
        "train = torch.tensor(data.train)\n"
        "pool = sampling_pool(data.labels[data.train], config, data.classes)",
        draw="train[pool.draw()]",
        loss=f"batch, target, {mask} = vary(to_unit(images[index]), labels[index], config{masks})\n"
        f"{forward}\n"
        f"loss = criterion(logits, target){terms}",
        score="truth = data.labels[data.val]\n"
        "probabilities = predict(evaluated, data.images[data.val], config, device=device)\n"
        "metrics = classify_metrics(truth, probabilities)",
        extra='saved["thresholds"] = fit_thresholds(truth, probabilities)[0].tolist()',
    )
