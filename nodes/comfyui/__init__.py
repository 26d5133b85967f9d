"""What ties the methods of `perflow_core` to ComfyUI: its MODELs, its sampling, its files, its page."""
