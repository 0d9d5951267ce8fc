"""Bad sources: each is refused with an error that says what to do."""

import gzip
import json

import pytest

from streams.replay.chainlink import chainlink_world, read_rounds, rounds_by_slot, slot_of
from streams.replay.deribit import deribit_world
from streams.replay.deribit_records import read_snapshots
from streams.replay.files import SAMPLES, ReplayError
from streams.replay.hyperliquid import hyperliquid_world
from streams.replay.hyperliquid_records import read_blocks

WORLDS = {"hyperliquid": hyperliquid_world, "deribit": deribit_world, "chainlink": chainlink_world}
FILL = {
    "coin": "BTC", "px": "100.0", "sz": "1.0", "side": "B", "time": 1_000, "startPosition": "0.0", "fee": "0.0",
    "tid": 1, "feeToken": "USDC",
}  # fmt: skip
BLOCK = {"block_time": "2025-10-27T17:00:00.000000001", "block_number": 5, "events": [["0xa", FILL]]}
ROUNDS = "round,answer,update\n"


def chain_text():
    path = min(SAMPLES.glob("*deribit_options_snapshot_*"))
    return gzip.decompress(path.read_bytes()).decode()


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected|no fills|holds 0 snapshots|no rounds"),
        (b"hello\nworld\n", "expected"),
        (b"\xff\xfe\x00\x01", "no UTF-8 text"),
    ],
)
def test_file_of_another_kind(name, content, said, tmp_path):
    path = tmp_path / "something.txt"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match=said):
        WORLDS[name](path, 7, 64)


@pytest.mark.parametrize("name", WORLDS)
def test_missing_file_and_empty_folder(name, tmp_path):
    with pytest.raises(ReplayError, match="does not exist: give --source"):
        WORLDS[name](tmp_path / "nothing", 7, 64)
    with pytest.raises(ReplayError, match=r"no file named .* give --source"):
        WORLDS[name](tmp_path, 7, 64)


@pytest.mark.parametrize("name", WORLDS)
def test_broken_gzip(name, tmp_path):
    whole = gzip.compress(b"x" * 10_000)
    for i, content in enumerate((b"no gzip at all", whole[: len(whole) // 2])):
        path = tmp_path / f"broken{i}.gz"
        path.write_bytes(content)
        with pytest.raises(ReplayError, match="cannot be read"):
            WORLDS[name](path, 7, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_time": "yesterday"}, "is no time"),
        ({"block_number": "five"}, "no recorded block"),
        ({"events": [["0xa", FILL | {"side": "C"}]]}, "neither A"),
        ({"events": [["0xa", FILL | {"px": "NaN"}]]}, "is no number"),
        ({"events": [["0xa", FILL | {"px": "-1"}]]}, "above zero"),
        ({"events": [["0xa", FILL | {"sz": "0"}]]}, "above zero"),
        ({"events": [["0xa", {"coin": "BTC"}]]}, "no recorded block"),
        ({"events": []}, "no fills"),
    ],
)
def test_fills_that_are_refused(change, said, tmp_path):
    path = tmp_path / "fills.jsonl"
    path.write_text(json.dumps(BLOCK | change) + "\n")
    with pytest.raises(ReplayError, match=said):
        read_blocks(path)


@pytest.mark.parametrize(
    ("second", "said"),
    [({"block_number": 7}, "contiguous"), ({"block_number": 6, "block_time": "2025-10-27T16:00:00"}, "older")],
)
def test_blocks_out_of_order(second, said, tmp_path):
    path = tmp_path / "fills.jsonl"
    path.write_text("\n".join(map(json.dumps, (BLOCK, BLOCK | second))))
    with pytest.raises(ReplayError, match=f"line 2.*{said}"):
        read_blocks(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("index_price", "price", "no column index_price"),
        ("put", "both", "neither call nor put"),
        ("2024-01-08T11:19:41+00:00", "2024-01-08T11:19:41", "no offset"),
        (",2222.19\n", ",0\n", "above zero"),
        (",2222.19\n", ",abc\n", "is no number"),
        (",2222.19\n", "\n", "is cut off"),
    ],
)
def test_chains_that_are_refused(old, new, said, tmp_path):
    path = tmp_path / "chain.csv"
    text = chain_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ReplayError, match=said):
        read_snapshots([path])


def test_chain_given_twice_or_two_in_one_file(tmp_path):
    text = chain_text()
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(text)
    with pytest.raises(ReplayError, match="same time"):
        read_snapshots([tmp_path / "a.csv", tmp_path / "b.csv"])
    header, first, *_ = text.splitlines()
    (tmp_path / "c.csv").write_text("\n".join((header, first, first.replace("T11:19:41", "T11:20:00", 1))))
    with pytest.raises(ReplayError, match="holds 2 snapshots"):
        read_snapshots([tmp_path / "c.csv"])


def test_rounds_that_are_refused_or_dropped(tmp_path):
    path = tmp_path / "rounds.csv"
    path.write_text(ROUNDS + "1,abc,1700000015\n")
    with pytest.raises(ReplayError, match="must be integers"):
        read_rounds(path)
    path.write_text(ROUNDS + "1,0,0\n")
    with pytest.raises(ReplayError, match="no rounds"):
        read_rounds(path)


def test_later_round_of_a_slot_wins(tmp_path):
    path = tmp_path / "rounds.csv"
    path.write_text(ROUNDS + "4,400,1700000027\n3,300,1700000015\n2,200,1700000015\n1,0,0\n")
    rounds = read_rounds(path)
    assert [r.answer for r in rounds] == [200, 300, 400]
    assert [r.answer for r in rounds_by_slot(rounds)] == [300, 400]
    assert slot_of(1_606_824_023 + 24) == 2


@pytest.mark.parametrize("name", WORLDS)
def test_limit_that_leaves_nothing(name):
    with pytest.raises(ReplayError, match="ask for 1 or more"):
        WORLDS[name](None, 7, 64, 0)


def test_field_beyond_any_csv(tmp_path):
    path = tmp_path / "rounds.csv"
    path.write_text(ROUNDS + "1" * 200_000 + ",1,1700000015\n")
    with pytest.raises(ReplayError, match="no CSV file"):
        read_rounds(path)


def test_two_recordings_in_one_folder(tmp_path):
    for name in ("a_node_fills.jsonl", "b_node_fills.jsonl"):
        (tmp_path / name).write_text(json.dumps(BLOCK))
    with pytest.raises(ReplayError, match="give --source one of them"):
        hyperliquid_world(tmp_path, 7, 64)
