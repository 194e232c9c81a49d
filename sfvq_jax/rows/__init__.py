"""Where latents come from; a file a kind."""
