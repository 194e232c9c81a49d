"""What a curve is for: edits along its lines, new samples on its points."""

from sfvq_jax.interpret.augmentation import positions_along_line
from sfvq_jax.interpret.editing import deviation_along, edit_latents, line_direction

__all__ = ["deviation_along", "edit_latents", "line_direction", "positions_along_line"]
