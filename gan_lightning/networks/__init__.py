"""Networks as plain `torch.nn` modules: usable with no Lightning at all."""
