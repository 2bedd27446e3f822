"""Measurements: what is slow, what is right; never run as tests."""
