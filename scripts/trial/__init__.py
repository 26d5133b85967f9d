"""What demo, tests and benchmarks try the pack on: a ComfyUI as a server or in this process, and small models."""
