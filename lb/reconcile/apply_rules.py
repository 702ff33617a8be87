"""Rules into memory: write the bank not in use, switch by one write, remove what only the old bank needed."""

from collections.abc import Iterable, Mapping

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Table, Tables, dtype_of
from lb.model import Prefix
from lb.model.columns import KEY_TYPE
from lb.reconcile.prefix_keys import in_nested_order, model_keys, table_keys
from lb.reconcile.rule_tables import CELLS, RULES_MAX, TRIE_OF, RulePlan

_LIMIT = layout().constants["RULE_LIMIT"]
_KEY_NUMBER = np.uint64(0xFFFF)
_BUCKET_OF = ("cost", "burst", "unit", "length4", "length6")
"""Members of struct rule_action that a bucket's time is counted by."""
_FAMILY = {name: family for (_, family), name in TRIE_OF.items()}


class RuleMemory:
    """Keeps rules as planned. One writer; after an error it is of no more use: make another.

    At every moment both banks, and whatever the tries hold, are right for the bank in use.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables, self._arrays = tables, tables.arrays
        self._tries = {name: _RuleTrie(getattr(tables, name), family) for name, family in _FAMILY.items()}
        self._held: RulePlan | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no rule is in force."""
        return not self._arrays.rule_actions[self._bank]["action"].any()

    def holds(self, plan: RulePlan) -> bool:
        """Whether just these rules are in force."""
        bank, wanted = self._bank, plan.bank
        return (
            np.array_equal(self._arrays.rule_actions[bank], wanted.actions)
            and np.array_equal(self._arrays.rule_cells[bank, :CELLS], wanted.cells)
            and all(
                np.array_equal(self._arrays.rule_sets[bank, field, : len(rows)], rows)
                for field, rows in enumerate(wanted.sets)
            )
            and all(trie.says(bank, plan.prefixes[name]) for name, trie in self._tries.items())
        )

    def put(self, plan: RulePlan) -> None:
        """Make memory hold these rules."""
        if self._held is plan:
            return
        self._held = None
        if not self.holds(plan):
            self._change(plan)
        self._arrays.rule_owners[:] = plan.owners
        self._held = plan

    def usage(self) -> dict[str, tuple[int, int]]:
        """Used and all places of each table."""
        return {"rules": (int(np.count_nonzero(self._arrays.rule_actions[self._bank]["action"])), RULES_MAX)}

    @property
    def _bank(self) -> int:
        """The one in use."""
        return int(self._arrays.rule_bank["bank"][0]) & 1

    def _change(self, plan: RulePlan) -> None:
        used, wanted = self._bank, plan.bank
        spare = 1 - used
        self._take_numbers(plan)
        self._arrays.rule_cells[spare, :CELLS] = wanted.cells
        for field, rows in enumerate(wanted.sets):
            self._arrays.rule_sets[spare, field, : len(rows)] = rows
        self._arrays.rule_actions[spare] = wanted.actions
        for name, trie in self._tries.items():
            trie.add(spare, plan.prefixes[name])
        altered = _altered(self._arrays.rule_actions[used], wanted.actions)
        self._arrays.rule_bank["bank"][0] = spare
        # Behind the switch: before it packets still charge what the old limit asked.
        self._forget_buckets(altered)
        for name, trie in self._tries.items():
            trie.keep_only(plan.prefixes[name])

    def _take_numbers(self, plan: RulePlan) -> None:
        """Numbers that get an owner start at zero. Those given back stay whose they were while they are in use."""
        owners = self._arrays.rule_owners
        fresh = np.flatnonzero((plan.owners != 0) & (owners != plan.owners))
        if not len(fresh):
            return
        self._tables.rule_counters.clear(fresh.tolist())
        limits = plan.bank.actions[plan.bank.actions["action"] == _LIMIT]["number"]
        self._forget_buckets(np.intersect1d(fresh, limits).tolist())
        owners[fresh] = plan.owners[fresh]

    def _forget_buckets(self, numbers: Iterable[int]) -> None:
        """Nobody has used anything of the limits with these numbers."""
        chosen = list(numbers)
        if not chosen:
            return
        self._arrays.limit_totals["paid_until"][chosen] = 0
        keys = self._arrays.limit_buckets["key"]
        keys[np.isin(keys & _KEY_NUMBER, np.array(chosen, np.uint64))] = 0


def _altered(old: Array, new: Array) -> list[int]:
    """Numbers of limits that are in both and not the same: what their buckets say means something else."""
    before = {row["number"]: row[[*_BUCKET_OF]] for row in old[old["action"] == _LIMIT]}
    return [
        int(row["number"])
        for row in new[new["action"] == _LIMIT]
        if row["number"] in before and before[row["number"]] != row[[*_BUCKET_OF]]
    ]


class _RuleTrie:
    """A trie of prefixes, and what it holds: of each prefix the class in both banks."""

    def __init__(self, table: Table, family: int) -> None:
        self._table, self._family = table, family
        rows, values = table.read()
        keys = model_keys(family, rows).tolist()
        self._held: dict[Prefix, tuple[int, int]] = {
            Prefix.from_key(key): (first, second)
            for key, (first, second) in zip(keys, values["in"].tolist(), strict=True)
        }

    def says(self, bank: int, wanted: Mapping[Prefix, int]) -> bool:
        """Whether it holds just these prefixes, with these classes in a bank."""
        return {prefix: pair[bank] for prefix, pair in self._held.items()} == wanted

    def add(self, spare: int, wanted: Mapping[Prefix, int]) -> None:
        """Say of each prefix that either bank needs its class in both.

        Where a bank has no such prefix its class is that of the longest around it, as if it were not there.
        """
        around: list[tuple[Prefix, tuple[int, int]]] = []
        differ: dict[Prefix, tuple[int, int]] = {}
        for prefix in in_nested_order(self._held.keys() | wanted.keys()):
            while around and not around[-1][0].contains(prefix):
                around.pop()
            outer = around[-1][1] if around else (0, 0)
            pair = list(self._held.get(prefix, outer))
            pair[spare] = wanted.get(prefix, outer[spare])
            both = pair[0], pair[1]
            around.append((prefix, both))
            if self._held.get(prefix) != both:
                differ[prefix] = both
        if differ:
            values = np.zeros(len(differ), dtype_of("rule_classes"))
            values["in"] = list(differ.values())
            self._table.write(self._keys(differ), values)
            self._held |= differ

    def keep_only(self, wanted: Mapping[Prefix, int]) -> None:
        """Take out what the bank in use does not need."""
        gone = self._held.keys() - wanted.keys()
        if gone:
            self._table.delete(self._keys(gone))
            self._held = {prefix: pair for prefix, pair in self._held.items() if prefix in wanted}

    def _keys(self, prefixes: Iterable[Prefix]) -> Array:
        return table_keys(self._family, np.array([prefix.key for prefix in prefixes], KEY_TYPE[self._family]))
