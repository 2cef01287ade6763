"""The options of the LightningCLI: parser, checks, messages about mistakes, help, and what follows from a run."""
