"""What every user encoder must hold: packing, causality, order."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError, DataError
from mmrec.user_encoders import (
    USER_ENCODERS,
    BERT4RecConfig,
    GRU4RecConfig,
    HSTUConfig,
    LiGRConfig,
    MeanPoolConfig,
    SASRecConfig,
    UserState,
    packing,
)
from mmrec.user_encoders.packing import Packed
from mmrec.user_encoders.sasrec import flex_is_right

DIM = 8


def sequences(*lengths: int, **more: torch.Tensor) -> SequenceBatch:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return SequenceBatch(item_idx=torch.arange(int(offsets[-1])), offsets=offsets, **more)


def build(config, dim: int = DIM):
    torch.manual_seed(0)
    model = config.build(dim)
    for parameter in model.parameters():  # zero-initialised outputs would hide what the blocks do
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(params=sorted(USER_ENCODERS))
def encoder(request):
    return build(USER_ENCODERS[request.param]())


def test_users_packed_together_equal_users_alone(encoder):
    items = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1))
    together = encoder(items, sequences(4, 0, 2, 3))
    alone = torch.cat([encoder(part, sequences(len(part))) for part in items.split([4, 2, 3])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_batch_of_many_lengths_equals_its_histories_alone(encoder):
    """Histories go into rectangles by length: nobody may end up in another's row, or in the padding."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(0, 40, (60,), generator=generator).tolist()
    items = torch.randn(sum(lengths), DIM, generator=generator)
    together = encoder(items, sequences(*lengths))
    alone = torch.cat([encoder(part, sequences(len(part))) for part in items.split(lengths)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_gives_the_vectors_of_rectangles():
    lengths = (5, 0, 17, 9, 1)
    items = torch.randn(sum(lengths), DIM, generator=torch.Generator().manual_seed(11))
    with torch.inference_mode():  # on a CPU it has no backward pass
        found, expected = (
            build(SASRecConfig(num_blocks=2, attention=attention))(items, sequences(*lengths))
            for attention in ("flex", "rectangles")
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_is_not_used_where_a_trial_of_it_fails(caplog):
    """Such as here: it has no backward pass on a CPU. What is used instead is said."""
    assert not flex_is_right(torch.device("cpu"), 8, 2, True)
    assert "histories attend in rectangles" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex attention has a backward pass on CUDA alone")
def test_on_cuda_flex_attention_has_the_gradients_of_rectangles():
    lengths = (5, 0, 117, 64, 1)
    gradients = []
    for attention in ("flex", "rectangles"):
        encoder = build(SASRecConfig(max_length=128, num_blocks=2, attention=attention), 32).cuda()
        items = torch.randn(sum(lengths), 32, generator=torch.Generator().manual_seed(12)).cuda()
        encoder(items, sequences(*lengths).to("cuda")).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_rectangles_hold_every_event_once_and_little_else():
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(0, 51, (500,), generator=generator)
    packed = Packed(sequences(*lengths.tolist()))
    places = torch.cat([rectangle.events[rectangle.real] for rectangle in packed.rectangles])
    assert torch.equal(places.sort().values, torch.arange(int(lengths.sum())))
    cells = sum(rectangle.real.numel() for rectangle in packed.rectangles)
    assert cells < 1.35 * int(lengths.sum()) < 0.75 * 500 * 50, "padding all to the longest would be twice the work"


@pytest.mark.parametrize("name", sorted(set(USER_ENCODERS) - {"mean_pool", "gru4rec"}))
def test_long_histories_in_chunks_have_the_vectors_and_gradients_of_short_ones(name, monkeypatch):
    encoder = build(USER_ENCODERS[name](num_blocks=2))
    lengths = (23, 5, 17)
    items = torch.randn(sum(lengths), DIM, generator=torch.Generator().manual_seed(6), requires_grad=True)
    times = torch.randint(100_000, (sum(lengths),), generator=torch.Generator().manual_seed(7))

    def vectors_and_gradients():
        found = encoder(items, sequences(*lengths, timestamps=times))
        return found, *torch.autograd.grad(found.square().sum(), [items, *encoder.parameters()], allow_unused=True)

    whole = vectors_and_gradients()
    monkeypatch.setattr(packing, "CHUNK", 4)
    monkeypatch.setattr(packing, "SCAN", 3)
    for found, expected in zip(vectors_and_gradients(), whole, strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("known", [False, True], ids=["times", "query times"])
@pytest.mark.parametrize("name", sorted(set(USER_ENCODERS) - {"bert4rec"}))
def test_a_history_that_grows_has_the_vectors_of_the_whole_history(name, known, tmp_path):
    """Also past max_length, from where on the oldest event goes with each new one, and out of a stored state."""
    more = {"query_time": "known"} if known and name == "hstu" else {}
    deep = {} if name == "mean_pool" else {"num_blocks": 2}
    encoder = build(USER_ENCODERS[name](max_length=6, **deep, **more), 32).double()
    items = torch.randn(9, 32, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    times = torch.tensor([3, 3, 10, 500, 90_000, 90_001, 90_001, 7_000_000, 7_000_060])
    state = UserState()
    for n in range(9):
        asked = int(times[n]) + 1000
        torch.save(dataclasses.asdict(state), tmp_path / "state.pt")
        state = UserState(**torch.load(tmp_path / "state.pt"))
        found = encoder.append(state, items[n], timestamp=int(times[n]), query_time=asked)
        first = max(0, n - 5)
        window = times[first : n + 1]
        batch = sequences(len(window), timestamps=window, query_times=torch.cat([window[1:], torch.tensor([asked])]))
        torch.testing.assert_close(found, encoder(items[first : n + 1], batch)[-1], atol=1e-9, rtol=1e-9)
        assert not found.requires_grad


def test_a_growing_history_has_times_or_has_none():
    encoder, state = build(SASRecConfig()), UserState()
    encoder.append(state, torch.ones(DIM), timestamp=5)
    with pytest.raises(DataError, match="give it for all or for none"):
        encoder.append(state, torch.ones(DIM))


@pytest.mark.parametrize("name", sorted(USER_ENCODERS))
def test_a_history_longer_than_the_encoder_reads_is_refused(name):
    encoder = build(USER_ENCODERS[name](max_length=4))
    encoder(torch.randn(4, DIM), sequences(4))
    with pytest.raises(DataError, match=r"a history has 5 events, the encoder reads 4; give its last 4"):
        encoder(torch.randn(7, DIM), sequences(2, 5))


def test_later_events_do_not_change_earlier_vectors(encoder):
    items = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    changed = items.clone()
    changed[4:] *= -2.0
    before, after = encoder(items, sequences(6)), encoder(changed, sequences(6))
    torch.testing.assert_close(before[:4], after[:4], atol=1e-5, rtol=0)
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


def test_every_parameter_receives_a_gradient(encoder):
    items = torch.randn(5, DIM, generator=torch.Generator().manual_seed(3))
    encoder(items, sequences(5)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_an_empty_batch_still_reaches_every_parameter(encoder):
    """A rank that has no history in the last step of an epoch must take part in the gradient exchange."""
    encoder(torch.zeros(0, DIM), sequences()).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_mean_pooling_ignores_the_order_of_a_history():
    torch.manual_seed(0)
    encoder = MeanPoolConfig().build(DIM).eval()
    items = torch.randn(5, DIM)
    shuffled = items[torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(encoder(items, sequences(5))[-1], encoder(shuffled, sequences(5))[-1])


@pytest.mark.parametrize("given", [{"max_length": 0}, {"dropout": 1.0}, {"num_blocks": 0}, {"num_heads": 0}], ids=str)
def test_a_setting_out_of_range_is_refused_by_name_and_value(given):
    (name, value), *_ = given.items()
    with pytest.raises(ConfigError, match=f"user_encoder.{name} is {value}; it must be"):
        SASRecConfig(**given)


def test_masked_training_starts_calmly():
    """A masked event with nothing before it has no mean; a zero vector there would have an endless gradient."""
    torch.manual_seed(0)
    encoder = BERT4RecConfig().build(DIM)
    items = torch.randn(4, DIM)
    batch = sequences(1, 3, masked=torch.tensor([True, True, False, True]), keys=torch.arange(4))
    torch.nn.functional.normalize(encoder(items, batch), dim=1)[:, 0].sum().backward()
    assert max(float(p.grad.norm()) for p in encoder.parameters() if p.grad is not None) < 100


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the model width 8"):
        SASRecConfig(num_heads=3).build(DIM)


def test_an_untrained_sasrec_is_the_mean_in_which_later_events_weigh_more():
    torch.manual_seed(0)
    encoder = SASRecConfig().build(DIM).eval()
    items = torch.nn.functional.normalize(torch.randn(3, DIM), dim=-1)
    found = encoder(items, sequences(3))[-1]
    weights = torch.exp(-0.5 * torch.tensor([2.0, 1.0, 0.0]))
    torch.testing.assert_close(found, (weights / weights.sum()) @ items, atol=1e-5, rtol=0)


def test_hstu_with_times_packs_users_without_mixing_them():
    torch.manual_seed(0)
    encoder = HSTUConfig().build(DIM).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    items, times = torch.randn(7, DIM), torch.tensor([1, 50, 4000, 7, 7, 90, 100_000])
    together = encoder(items, sequences(4, 3, timestamps=times))
    parts = zip(items.split([4, 3]), times.split([4, 3]), strict=True)
    alone = torch.cat([encoder(part, sequences(len(part), timestamps=when)) for part, when in parts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    elsewhen = encoder(items, sequences(4, 3, timestamps=times * 3))
    assert (together - elsewhen).abs().max() > 1e-3, "times matter"


@pytest.mark.parametrize("config", [SASRecConfig, LiGRConfig, HSTUConfig, GRU4RecConfig])
@pytest.mark.parametrize("num_blocks", [1, 8])
def test_shallow_and_deep_networks_learn_what_depends_on_two_events(config, num_blocks):
    """The next item is the sum of the last two, modulo 5: no function of one event, and of no mean of events."""
    if config is GRU4RecConfig and num_blocks == 8:
        pytest.skip("recurrent layers have no residual path; one is what the paper uses")
    torch.manual_seed(0)
    encoder = config(num_blocks=num_blocks, dropout=0.0).build(32)
    table = torch.nn.functional.normalize(torch.randn(5, 32), dim=1)
    generator = torch.Generator().manual_seed(1)
    events = list(torch.randint(5, (2, 64), generator=generator))
    while len(events) < 9:
        events.append((events[-1] + events[-2]) % 5)
    history = torch.stack(events, 1)  # (64, 9)
    inputs, targets = history[:, :-1].flatten(), history[:, 1:].flatten()
    batch = sequences(*[8] * 64)
    predictable = torch.arange(len(inputs)) % 8 >= 1
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(120):
        logits = 10 * torch.nn.functional.normalize(encoder(table[inputs], batch), dim=1) @ table.T
        loss = torch.nn.functional.cross_entropy(logits[predictable], targets[predictable])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (logits.argmax(1) == targets)[predictable].double().mean()
    assert right > 0.95


def test_times_that_go_back_count_as_no_time_at_all():
    """Ingest sorts by time; a batch made elsewhere may not, and gets what equal times get."""
    encoder = build(HSTUConfig())
    items = torch.randn(3, DIM)
    back = encoder(items, sequences(3, timestamps=torch.tensor([50, 50, 10])))
    torch.testing.assert_close(back, encoder(items, sequences(3, timestamps=torch.tensor([50, 50, 50]))))


def test_an_hstu_that_knows_the_query_time_uses_it_and_asks_for_it():
    encoder = build(HSTUConfig(query_time="known"))
    items, times = torch.randn(3, DIM), torch.tensor([10, 20, 30])
    soon, late = (
        encoder(items, sequences(3, timestamps=times, query_times=torch.tensor([20, 30, asked])))
        for asked in (31, 9_000_000)
    )
    torch.testing.assert_close(soon[:2], late[:2])
    assert (soon[2] - late[2]).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="knows when the next item is asked for"):
        encoder(items, sequences(3, timestamps=times))


def test_bert4rec_does_not_see_the_masked_item_and_sees_both_sides():
    encoder = build(BERT4RecConfig())
    items = torch.randn(5, DIM)
    batch = sequences(5, masked=torch.tensor([False, False, True, False, True]))
    before = encoder(items, batch)
    masked, earlier, later = items.clone(), items.clone(), items.clone()
    masked[2], earlier[0], later[3] = torch.randn(3, DIM)
    torch.testing.assert_close(encoder(masked, batch), before, atol=0, rtol=0)
    assert (encoder(earlier, batch)[2] - before[2]).abs().max() > 1e-3
    assert (encoder(later, batch)[2] - before[2]).abs().max() > 1e-3


def test_bert4rec_asks_by_a_masked_event_behind_the_history():
    encoder = build(BERT4RecConfig())
    items = torch.randn(5, DIM)
    found = encoder(items, sequences(3, 0, 2))
    for rows in (slice(0, 3), slice(3, 5)):
        part = items[rows]
        longer = torch.cat([part, torch.randn(1, DIM)])
        masked = torch.zeros(len(longer), dtype=torch.bool)
        masked[-1] = True
        torch.testing.assert_close(found[rows][-1], encoder(longer, sequences(len(longer), masked=masked))[-1])
    assert not found[[0, 1, 3]].any(), "events that would see their future have no vector"


def test_bert4rec_keeps_no_state():
    with pytest.raises(ConfigError, match="encode the history again"):
        build(BERT4RecConfig()).append(UserState(), torch.ones(DIM))


def test_the_recency_mean_equals_its_definition():
    from mmrec.user_encoders.sequential import RecencyMean

    mean = RecencyMean(0.3).double()
    items = torch.randn(150, DIM, dtype=torch.float64)
    found = mean(items, Packed(sequences(150)))
    for n in (0, 1, 63, 64, 149):
        weights = torch.exp(-0.3 * torch.arange(n, -1, -1, dtype=torch.float64))
        torch.testing.assert_close(found[n], (weights / weights.sum()) @ items[: n + 1], atol=1e-5, rtol=0)
