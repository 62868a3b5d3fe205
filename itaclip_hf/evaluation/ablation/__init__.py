"""Ablation tables: rows that share passes through the encoder."""
