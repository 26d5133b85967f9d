"""The pictures of docs/gallery.md, drawn by the small trained model in a real ComfyUI."""
