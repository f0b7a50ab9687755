"""File formats of weights: safetensors and those of torch.save."""
