"""What a program has loaded, kept out of the garbage collector's way.

A program of ours holds some 200,000 objects once its modules are imported, and they stay. Python's
collector walks all of them in every full collection, with every thread stopped: 260 to 380 ms each
in a server process of the API on a busy machine of two cores, which all requests of that moment
wait for. Moved aside once, they are not looked at again.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Collect what is garbage, and set what is left aside for ever.

    For when a program is ready and before it serves: a cycle that dies later among these objects is
    not found any more, so this is not to be done again and again.
    """
    gc.collect()
    gc.freeze()
