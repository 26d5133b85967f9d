"""Drawn pictures with captions, for a small model: endlessly many, all made here."""
