"""``vramfit plan`` as a person types it: table, JSON, what is given, errors."""

from __future__ import annotations

import json

import pytest

from command_run import run

ASKED = ("plan", "meta-llama/Llama-3.1-8B", "--gpus", "8", "--gpu", "h100-sxm-80gb", "--sequence", "4096")
TITAN = (*ASKED, "--framework", "torchtitan")


def test_report_has_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    """The first mesh and why, the table, what was refused, the proxy with its words, what was assumed."""
    code, out, err = run(capsys, *TITAN, "--plan", "pp=1", "--top", "3")
    assert (0, "") == (code, err)
    for text in (
        "Fits on 8 x h100-sxm-80gb: ", "Meshes that fit, by the proxy", "Refused, candidates", "does not fit",
        "The proxy", "waiting + max(0, passing - 1)", "bubble: share of a step", "NVLink",
        "global batch 32: 4 sequences for each device", "more meshes: --top",
    ):  # fmt: skip
        assert text in " ".join(out.split()), text
    assert "\n  3." in out
    assert "\n  4." not in out


def test_json_has_the_whole_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Candidates with plans, proxies and verdicts; refusals; links; numbers that add up."""
    code, out, _ = run(capsys, *TITAN, "--json", "--global-batch", "64", "--headroom", "2GiB", "--top", "5")
    assert 0 == code
    answer = json.loads(out)
    assert (8, 64, 4096) == (answer["num_devices"], answer["global_batch"], answer["sequence_tokens"])
    refused = sum(refusal["num_candidates"] for refusal in answer["refusals"])
    assert answer["num_candidates"] == answer["num_fitting"] + answer["num_tight"] + refused
    first = answer["ranked"][0]
    assert "fits" == first["verdict"]
    assert first["proxy"]["cost"] == min(each["proxy"]["cost"] for each in answer["ranked"])
    plan, candidate = first["candidate"]["plan"], first["candidate"]
    assert 64 == candidate["micro_batch"] * candidate["accumulation"] * plan["dp_replicate"] * plan["dp_shard"]


def test_what_is_given_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    """--plan, --batch and --recompute hold fast what they say."""
    code, out, _ = run(capsys, *TITAN, "--json", "--plan", "tp=2,pp=1", "--batch", "1", "--recompute", "full")
    assert 0 == code
    for each in json.loads(out)["ranked"]:
        candidate = each["candidate"]
        assert (2, 1) == (candidate["plan"]["tp"], candidate["plan"]["pp"])
        assert (1, "full") == (candidate["micro_batch"], candidate["recompute"])


def test_links_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """A slower link inside the node makes what is exchanged there dearer."""
    slow = json.loads(
        run(capsys, *TITAN, "--json", "--inside-link", "4.5GB", "--plan", "tp=2,pp=1,cp=1", "--recompute", "full")[1]
    )
    fast = json.loads(run(capsys, *TITAN, "--json", "--plan", "tp=2,pp=1,cp=1", "--recompute", "full")[1])
    assert 4_500_000_000 == slow["links"]["inside_bytes_per_second"]
    ratio = slow["ranked"][0]["proxy"]["waiting_ratio"] / fast["ranked"][0]["proxy"]["waiting_ratio"]
    assert 100 == pytest.approx(ratio)


def test_check_says_when_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 with --check, and the candidate that lacks least is shown."""
    asked = ("plan", "meta-llama/Llama-3.1-70B", "--gpus", "2", "--gpu", "l4-24gb", "--sequence", "1024", "--check")
    code, out, _ = run(capsys, *asked)
    assert 1 == code
    assert "No mesh fits on 2 x l4-24gb" in out
    assert "The candidate that lacks least" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--gpus", "0"), "gpus: 0: expected"),
        (("--accumulate", "4"), "--global-batch says it"),
        (("--plan", "tp=3"), "expected a multiple of 3"),
        (("--plan", "micro_batches=4"), "the search decides it"),
        (("--plan", "zero_stage=3"), "a way in which torchtitan divides states"),
        (("--recompute", "offload"), "what torchtitan has"),
        (("--node", "0"), "--node: 0: expected at least 1"),
        (("--between-link", "fast"), "--between-link"),
        (("--gpu", "h100"), ""),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str) -> None:
    """Exit code 2 and one line; a card by its alias is no error."""
    code, _, err = run(capsys, *TITAN, *more)
    assert code == (2 if message else 0)
    assert message in err
    assert err.count("\n") <= 1
