"""Texts about classes by a language model."""
