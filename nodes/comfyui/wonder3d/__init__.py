"""Wonder3D as a ComfyUI model."""
