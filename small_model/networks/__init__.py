"""The small model's networks and how they are stored; every file here decides what the demo's model files hold."""
