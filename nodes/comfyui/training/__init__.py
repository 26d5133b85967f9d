"""Training in the graph: examples, adapters on a lent UNet, the loop, the files."""
