"""How one trial trains: data, models, and train functions that yield epochs, for VOC-style image sets."""
