"""Side by side with other implementations, and how the bundled models were trained."""
