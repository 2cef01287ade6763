"""The commands that are no LightningCLI, each in a module named after it, with its options and its job beside it."""
