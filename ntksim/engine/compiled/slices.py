"""Parts of compiled functions, which Python has done a slice at a time (`threads.in_slices`)."""

from ntksim.engine.compiled.jit import jit_inline


@jit_inline
def is_due(parts):
    """Whether the next part is to be done now; ``parts`` is a `threads.window`, and counts unless all are done."""
    if parts[0] < 0:
        return True
    here = parts[2]
    parts[2] = here + 1
    return parts[0] <= here < parts[1]
