"""All that is to be measured on an accelerator, in one run of less than seven minutes.

    python -m benchmarks.accelerator --save FOLDER
    python -m benchmarks.accelerator --save FOLDER --quick              # a trial, on a CPU too
    python -m benchmarks.accelerator --save FOLDER --parts fits,adam    # some parts, more time each

It runs from a checkout, without installation, and needs jax, flax, optax, orbax and numpy. PyTorch
and Triton are measured beside ours where they are installed.

    correctness   against NumPy in float64, at every precision; the same fit twice, bit for bit
    projection    the nearest line, ours, beside the nearest codeword in JAX and in PyTorch
    fits          rounds of least squares and where their time goes, k-means, whole fits
    adam          steps of the published recipe, beside PyTorch's loop
    generators    StyleGAN2 and BigGAN-deep, beside PyTorch
    programs      what XLA says of the main programs; shares of the card's measured ceilings
    nearest       the nearest codeword by a Triton kernel and by torch.compile

Each part runs in a process of its own and within a share of the time that is left. What it measures
is in FOLDER/PART.json after every row. A part that fails, crashes or hangs leaves its reason there,
and the next one goes on. A row for which no time is left is listed as skipped.
"""
