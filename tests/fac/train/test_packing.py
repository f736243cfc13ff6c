"""fac.train.packing: chats that share a line are read as if each stood alone."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import Family, tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from fac.train.double import in_double
from fac.train.packing import Packed, Reader, at_once, keeps_apart, parts, reader

ROWS = [[5, 9, 2, 7, 11, 3], [4, 4, 10], [6], [8, 1], [12, 13, 14, 15]]


def network(folder: Any, family: Family = "llama", **changes: Any) -> Any:
    config = AutoConfig.from_pretrained(tiny_model(folder, family), **changes)
    return in_double(AutoModelForSequenceClassification.from_pretrained(folder, config=config)).eval()


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), min_size=1, max_size=12), st.booleans())
def test_every_row_lies_whole_in_one_line_and_its_positions_begin_anew(rows: list[list[int]], together: bool):
    packed = Packed.of(rows, together)
    longest = max(map(len, rows))
    assert packed.ids.shape == packed.positions.shape == (len(packed.ids), longest)
    assert len(packed.ids) <= len(rows)
    ids, positions = packed.ids.flatten().tolist(), packed.positions.flatten().tolist()
    taken: set[int] = set()
    for row, last in zip(rows, packed.last.tolist(), strict=True):
        places = range(last + 1 - len(row), last + 1)
        assert places[0] // longest == places[-1] // longest
        assert [ids[place] for place in places] == row
        assert [positions[place] for place in places] == list(range(len(row)))
        taken |= set(places)
    assert len(taken) == sum(map(len, rows))
    assert (packed.laid(rows, -1).flatten() == torch.tensor(ids))[sorted(taken)].all()
    assert (packed.laid(rows, -1) == -1).sum() == packed.ids.numel() - len(taken)


def test_lines_are_made_up_to_a_multiple():
    packed = Packed.of(ROWS, multiple=4)
    assert packed.ids.shape == (2, 8)
    assert [packed.ids.flatten()[last] for last in packed.last] == [row[-1] for row in ROWS]


def test_short_rows_fill_the_lines_of_long_ones():
    assert len(Packed.of(ROWS).ids) == 3  # of 6 tokens each, for 16
    assert len(Packed.of(ROWS, together=False).ids) == len(ROWS)


def alone(model: Any) -> torch.Tensor:
    return torch.cat([model.base_model(torch.tensor([row])).last_hidden_state[:, -1] for row in ROWS])


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_states_are_those_of_each_row_alone(tmp_path: Any, family: Family):
    model = network(tmp_path, family)
    expected = alone(model)
    assert keeps_apart(model)
    for together in (True, False):
        for short in (True, False):
            with Reader(model, together, short) as read:
                torch.testing.assert_close(read(ROWS), expected, rtol=0, atol=1e-12)
    assert "forward" not in vars(model.base_model.layers[-1])


@torch.no_grad()
def test_a_window_shorter_than_a_row_holds_for_rows_that_share_a_line(tmp_path: Any):
    model = network(tmp_path, "mistral", sliding_window=2)
    expected = alone(model)
    with reader(model) as read:
        torch.testing.assert_close(read(ROWS), expected, rtol=0, atol=1e-12)


def test_a_model_that_does_not_heed_positions_has_a_line_for_each_row(tmp_path: Any):
    model = network(tmp_path, attention_bias=True).train()  # of a kind that was not tried before
    heeds = model.base_model.forward
    model.base_model.forward = lambda position_ids, **given: heeds(**given)
    assert not keeps_apart(model)
    assert model.training  # as it was


@torch.no_grad()
def test_of_the_last_layer_s_mlp_only_what_is_asked_for_is_computed(tmp_path: Any):
    model, seen = network(tmp_path), list[tuple[int, ...]]()
    for layer in model.base_model.layers:
        layer.mlp.register_forward_pre_hook(lambda _module, given: seen.append(tuple(given[0].shape[:-1])))
    with reader(model) as read:
        read(ROWS)
    assert seen[-4:] == [(3, 6), (3, 6), (3, 6), (len(ROWS),)]


@torch.no_grad()
def test_a_last_layer_of_another_build_is_run_whole(tmp_path: Any):
    model = network(tmp_path, mlp_bias=True)
    layer = model.base_model.layers[-1]

    class Other(type(layer)):  # of the same parts
        def forward(self, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:
            return hidden_states + super().forward(hidden_states, **given)

    layer.__class__ = Other
    expected = alone(model)
    read = reader(model)
    assert not read._short
    with read:
        torch.testing.assert_close(read(ROWS), expected, rtol=0, atol=1e-12)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20), st.integers(1, 40))
def test_parts_hold_everything_in_order_within_the_budget(lengths: list[int], tokens: int):
    found = list(parts(range(len(lengths)), lengths, tokens))
    assert [item for part in found for item in part] == list(range(len(lengths)))
    assert all(len(part) == 1 or sum(lengths[item] for item in part) <= tokens for part in found)
    for part, after in itertools.pairwise(found):
        assert sum(lengths[item] for item in part) + lengths[after[0]] > tokens


@pytest.mark.parametrize(
    ("batch", "longest", "tokens", "rows"), [(16, 100, 1600, 16), (16, 100, 1599, 8), (6, 10, 45, 3), (16, 99, 1, 1)]
)
def test_as_many_rows_at_once_as_divide_the_batch_and_fit(batch: int, longest: int, tokens: int, rows: int):
    assert at_once(batch, longest, tokens) == rows
