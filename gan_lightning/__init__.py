"""Train GANs at scale with Lightning, measure them exactly, restore photographs with them."""
