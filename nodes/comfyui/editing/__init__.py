"""Prompt-to-Prompt: prompts read, edits planned, the attention of a sampling edited."""
