"""Images on disk, packed images, and the LightningDataModules on them."""
