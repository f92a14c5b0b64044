"""How one trial trains: data, models and pure train functions for a VOC-style image set."""
