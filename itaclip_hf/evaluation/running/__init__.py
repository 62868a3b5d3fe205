"""Predictors and the runner: one process or many, stopped and resumed."""
