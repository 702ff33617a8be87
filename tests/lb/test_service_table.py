"""The service tables: whatever is put in and taken out is found where the packet path looks, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.dataplane.layout import layout
from lb.dataplane.service_table import MORE, ServiceTable
from lb.dataplane.tables import Array, dtype_of
from lb.dataplane.twin import TwinTable
from lb.errors import CapacityError

BUCKETS = 4
CAPACITY = 24
Key = tuple[int, int, int]
"""The last byte of the VIP, port, protocol."""


class House:
    """A table of four buckets, so that most of them overflow."""

    def __init__(self, family: int) -> None:
        self.family = family
        ways = {4: 4, 6: 2}[family]
        self.slots: Array = np.zeros((BUCKETS, ways), layout().structs[f"service{family}_slot"])
        self.bits = np.zeros(128, np.uint64)
        self.more = TwinTable(f"services{family}_more", CAPACITY)
        self.table = self.opened()

    def opened(self) -> ServiceTable:
        """The table as a daemon finds it that starts over this memory."""
        return ServiceTable(self.slots, self.bits, self.more, CAPACITY, family=self.family)

    def keys(self, keys: list[Key]) -> Array:
        """As structs."""
        array = np.zeros(len(keys), dtype_of(f"service{self.family}_key"))
        for row, (vip, port, protocol) in zip(array, keys, strict=True):
            row["vip"] = vip if self.family == 4 else (0x20010DB8, 0, 0, vip)
            row["port"], row["protocol"] = port, protocol
        return array

    def put(self, entries: dict[Key, int]) -> None:
        """Write entries; the value is the service's number."""
        values = np.zeros(len(entries), dtype_of("service"))
        values["number"] = list(entries.values())
        self.table.write(self.keys(list(entries)), values)

    def held(self) -> dict[bytes, int]:
        """What a new reader of this memory finds."""
        keys, values = self.opened().read()
        return {k.tobytes(): int(v["number"]) for k, v in zip(keys, values, strict=True)}

    def named(self, entries: dict[Key, int]) -> dict[bytes, int]:
        """The same of a model."""
        keys = self.keys(list(entries))
        return {k.tobytes(): number for k, number in zip(keys, entries.values(), strict=True)}


keys = st.tuples(st.integers(1, 3), st.sampled_from([0, 80, 443, 8080]), st.sampled_from([0, 6, 17]))
steps = st.lists(
    st.tuples(st.booleans(), st.dictionaries(keys, st.integers(0, 65535), max_size=6)), max_size=12
)


@settings(deadline=None)
@given(steps=steps, family=st.sampled_from([4, 6]))
def test_any_sequence_of_changes_equals_a_dict(steps: list[tuple[bool, dict[Key, int]]], family: int) -> None:
    """After each write or delete, memory holds what a dict would, also for a table that is opened anew."""
    house, model = House(family), dict[Key, int]()
    for is_write, entries in steps:
        if is_write:
            if len(model | entries) > CAPACITY:
                continue
            house.put(entries)
            model |= entries
        else:
            house.table.delete(house.keys(list(entries)))
            model = {key: value for key, value in model.items() if key not in entries}

        assert house.held() == house.named(model)


@pytest.mark.parametrize("family", [4, 6])
def test_full_bucket_sends_readers_on(family: int) -> None:
    """More keys than slots: the last slot of a full bucket says so, and stops saying so when the rest is gone."""
    house = House(family)
    entries = {(1, port, 6): port for port in range(1, CAPACITY + 1)}

    house.put(entries)

    marked = house.slots["key"][:, -1] == np.uint64(MORE)
    assert marked.any()
    assert house.held() == house.named(entries)
    house.table.delete(house.keys(list(entries)))
    assert not house.slots["key"].any()
    assert len(house.more.read()[0]) == 0


def test_beyond_capacity_nothing_is_written() -> None:
    """CapacityError, and memory is as it was."""
    house = House(4)
    house.put({(1, 80, 6): 7})

    with pytest.raises(CapacityError):
        house.put({(2, port, 6): port for port in range(1, CAPACITY + 1)})

    assert house.held() == house.named({(1, 80, 6): 7})


@pytest.mark.parametrize("family", [4, 6])
def test_bits_are_those_of_the_vips(family: int) -> None:
    """A VIP's bit is set while any VIP of that hash is there; ports set none."""
    house = House(family)
    house.put({(1, 80, 6): 1, (2, 443, 17): 2})
    assert not house.bits.any()

    house.put({(1, 0, 0): 0, (2, 0, 0): 0})

    assert sum(int(word).bit_count() for word in house.bits) == 2
    house.table.delete(house.keys([(2, 0, 0)]))
    assert sum(int(word).bit_count() for word in house.bits) == 1
    house.table.delete(house.keys([(1, 0, 0)]))
    assert not house.bits.any()


@pytest.mark.parametrize("family", [4, 6])
def test_key_that_was_being_moved_is_where_readers_look(family: int) -> None:
    """A writer that ends between copying a key to the rest and sending readers there: changes reach the slot."""
    house = House(family)
    house.put({(1, 80, 6): 1})
    keys, values = house.table.read()
    house.more.write(keys, values)

    house.table = house.opened()
    house.put({(1, 80, 6): 2})

    assert house.slots["service"]["number"].max() == 2
    assert len(house.more.read()[0]) == 0


def test_what_the_kernel_refused_is_not_taken_for_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refused write and a read, there is as much room as memory says."""
    house = House(4)
    with monkeypatch.context() as broken:
        broken.setattr(house.more, "write", lambda *_: (_ for _ in ()).throw(OSError(12, "no memory")))
        with pytest.raises(OSError, match="no memory"):
            house.put({(1, port, 6): port for port in range(1, CAPACITY + 1)})

    keys, _ = house.table.read()
    house.table.delete(keys)

    entries = {(2, port, 6): port for port in range(1, CAPACITY + 1)}
    house.put(entries)
    assert house.held() == house.named(entries)
