"""Faithfulness: maps held against the model on variants of each image."""
