"""Maps' memory is looked through while packets write to it."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from lb.dataplane.tables import where_used

WORDS, LOOKS = 1 << 19, 60
"""So many words, looked at so often, that something is written meanwhile."""
WRITER = """
import sys
import numpy as np

words = np.memmap(sys.argv[1], np.uint64, "r+")[1::2]
print("writes", flush=True)
while True:
    words ^= np.uint64(0xDEF)
"""
"""Another process, as the kernel is: every second word is used and free in turn."""


def test_what_is_used_is_found_while_packets_write(tmp_path: Path) -> None:
    """Each word that stays is found, each once and in order, whatever comes and goes beside it."""
    words = np.memmap(tmp_path / "words", np.uint64, "w+", shape=WORDS)
    words[::4] = 0xABC
    stays = np.arange(0, WORDS, 4)

    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(words.filename)], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline()
            looks = [where_used(words) for _ in range(LOOKS)]
        finally:
            writer.kill()

    for found in looks:
        assert (np.diff(found) > 0).all()
        assert np.array_equal(found[found % 2 == 0], stays)
    assert len({len(found) for found in looks}) > 1  # it was written to
