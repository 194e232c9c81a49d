"""What lies on disk or is shown on a terminal: checkpoints, curve files, outputs, progress."""
