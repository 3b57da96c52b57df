"""What becomes of torch's compiler when a process has loaded everything.

Compiling writes files, and a replica that holds media can make none any more. All shapes that an engine will be given
are compiled when it is loaded (`Denoiser.warm_rows`); a shape that was forgotten is run as it is, which is slower, and
not refused with torch's error about a folder.
"""

import sys


def compile_no_more() -> None:
    """From now on, in every thread, what isn't compiled yet runs uncompiled. Without torch in the process: nothing."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.compiler.set_stance("eager_on_recompile")
