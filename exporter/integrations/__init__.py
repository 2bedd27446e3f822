"""Callbacks of trainers, thin ones around `exporter.Watcher`; each needs its own library."""
