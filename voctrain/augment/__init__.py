"""Augmentation of whole batches on the device: transforms, mixing and copy-paste."""
