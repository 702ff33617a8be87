"""sluice recover: what it says, and how it leaves."""

from pathlib import Path

from click.testing import CliRunner

from lb.cli.main import cli
from lb.daemon import STATE_FILE
from lb.model import Config
from lb.store import SqliteStore


def test_a_sound_file_is_left_and_a_damaged_one_mended(tmp_path: Path) -> None:
    """Exit code 1 and a sentence for a sound file; for a damaged one the revision, and where the file is kept."""
    path = tmp_path / STATE_FILE
    store = SqliteStore(path)
    before = Config()
    for summary in ("first", "second"):
        store.commit(before, before=before, actor="uid 0", summary=summary, now=1_900_000_000)
    store.close()
    words = ["recover", "--state-dir", str(tmp_path), "--yes"]

    sound = CliRunner().invoke(cli, words)
    assert (sound.exit_code, sound.stderr) == (
        1,
        f"sluice: {path} is sound, at revision 2: there is nothing to recover\n",
    )

    path.write_bytes(path.read_bytes().replace(b"second", b"sEcond"))
    mended = CliRunner().invoke(cli, words)
    assert mended.exit_code == 0, mended.output
    assert f"recovered revision 1 of 2030-03-17T17:46:40Z (first, by uid 0), from {path}\n" in mended.stdout
    (kept,) = tmp_path.glob(f"{STATE_FILE}.damaged-*")
    assert b"sEcond" in kept.read_bytes()
    again = SqliteStore(path)
    assert again.revisions()[0].summary == "first"
    again.close()
