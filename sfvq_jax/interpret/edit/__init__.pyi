from .apply import (
    Direction,
    codes_of,
    deviation_along,
    edit_latents,
    hold_attributes,
    layer_steps,
    line_direction,
    pair_direction,
    render_edits,
)

__all__ = [
    "Direction",
    "codes_of",
    "deviation_along",
    "edit_latents",
    "hold_attributes",
    "layer_steps",
    "line_direction",
    "pair_direction",
    "render_edits",
]
