"""Images on disk, packed images, and the LightningDataModules that read them."""
