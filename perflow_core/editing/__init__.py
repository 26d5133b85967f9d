"""Prompt-to-Prompt: which words are edited, when, and where in the picture."""
