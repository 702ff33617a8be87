"""Reads a stream, unpacks gzip on the fly, and refuses what exceeds the limits before it is in memory."""

import zlib

from lb.errors import FeedError

MIB = 1 << 20
RAW_MAX, UNPACKED_MAX = 64 * MIB, 256 * MIB
"""Bytes of a feed as it comes, and unpacked."""
GZIP = b"\x1f\x8b"
MEMBERS_MAX = 10_000
"""Members of one gzip file: they are read one by one, so millions of empty ones would take hours."""
_AT_ONCE = 1 << 16
"""Bytes: what follows a member is copied each time."""
_WRAPPED = 31
"""zlib's word for: the gzip format, its window as large as can be."""


class Unpacker:
    """Add pieces, then finish; packed: the pieces are gzip. FeedError as soon as a limit is passed."""

    def __init__(
        self, *, packed: bool = False, raw_max: int = RAW_MAX, unpacked_max: int = UNPACKED_MAX
    ) -> None:
        self._raw_max, self._unpacked_max = raw_max, unpacked_max
        self._raw = self._members = 0
        self._data = bytearray()
        self._stream = zlib.decompressobj(_WRAPPED) if packed else None

    def add(self, piece: bytes) -> None:
        """The next bytes as they came."""
        self._raw += len(piece)
        if self._raw > self._raw_max:
            raise too_large(self._raw_max)
        if self._stream is None:
            self._data += piece
            return
        for start in range(0, len(piece), _AT_ONCE):
            self._stream = self._unpacked(self._stream, piece[start : start + _AT_ONCE])

    def _unpacked(self, stream: "zlib._Decompress", piece: bytes) -> "zlib._Decompress":
        """Unpack a part; the stream that goes on after it."""
        while piece:
            if stream.eof:  # another member follows: files of gzip may be joined
                stream = zlib.decompressobj(_WRAPPED)
                self._members += 1
                if self._members >= MEMBERS_MAX:
                    raise FeedError(
                        f"its gzip has over {MEMBERS_MAX:,} members, the limit for a feed: ask who publishes it"
                    )
            room = self._unpacked_max - len(self._data)
            try:
                self._data += stream.decompress(piece, room + 1)
            except zlib.error as error:
                raise FeedError(
                    f"it is not the gzip it claims to be ({error}): ask who publishes it"
                ) from None
            if len(self._data) > self._unpacked_max:
                raise FeedError(
                    f"it is over {self._unpacked_max // MIB} MiB unpacked, the limit for a feed: give a shorter list"
                )
            piece = stream.unused_data
        return stream

    def finish(self) -> bytes:
        """All of it, unpacked, also a .gz that came as it is; FeedError if gzip ends in the middle."""
        data = self._whole()
        if not data.startswith(GZIP):
            return data
        inner = Unpacker(packed=True, raw_max=self._unpacked_max, unpacked_max=self._unpacked_max)
        inner.add(data)
        return inner._whole()

    def _whole(self) -> bytes:
        if self._stream is not None and not self._stream.eof:
            raise FeedError("its gzip ends in the middle, so that a part is missing: it is tried again later")
        return bytes(self._data)


def too_large(limit: int) -> FeedError:
    """What is said of more bytes than may come."""
    return FeedError(
        f"it is over {limit // MIB} MiB, the limit for a feed: give a shorter list, or pack it with gzip"
    )
