"""Profiles of training frameworks: which one answers, and that each can be used."""

from __future__ import annotations

import pytest

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.framework import Sharding
from vramfit.frameworks.profile import FRAMEWORKS, find_framework, profiles_of


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_every_profile_bears_its_name_and_can_be_trained_with_as_it_stands(name: str) -> None:
    """Its own word of precision has a recipe, versions rise, and fp32 is always possible."""
    profiles = profiles_of(name)
    assert [name] * len(profiles) == [p.name for p in profiles]
    for profile in profiles:
        assert profile.recipe(profile.precision) is not None
        assert profile.recipe("fp32") is not None
    versions = [tuple(map(int, p.version.split("."))) for p in profiles]
    assert sorted(set(versions)) == versions


@pytest.mark.parametrize(
    ("name", "version", "implementation"),
    [
        ("transformers", "4.17", "for-loop"),
        ("transformers", "4.49.0", "foreach"),
        ("transformers", "4.55.1", "fused"),
        ("torchtune", "0.2.0", "foreach"),
        ("torchtune", "0.4.0", "fused"),
        ("torchtitan", "83c879f18 2024-03-28", "foreach"),
        ("torchtitan", "9dec370 (2024-12-26)", "fused"),
        ("torchtitan", "d66b72a6a", "fused"),
    ],
)
def test_the_version_decides(name: str, version: str, implementation: str) -> None:
    """Version 4.55 of transformers made the fused AdamW its default, torchtune 0.3 names it in its configurations."""
    assert implementation == find_framework(name, version)[0].optimizer_implementation


def test_a_version_that_names_another_framework_is_its_own() -> None:
    """Megatron-Bridge is asked for under Megatron-LM's name, with its own version."""
    assert "megatron-bridge" == find_framework("megatron-lm", "Bridge 600d069b, 2026-08-12")[0].name
    assert "megatron-lm" == find_framework("megatron-lm", "2026-07/08")[0].name


def test_images_are_refused_by_name_with_what_to_do() -> None:
    """Diffusion models are traced."""
    with pytest.raises(InvalidValueError, match="vramfit trace"):
        find_framework("diffusers")


def test_an_unknown_framework_is_named_with_the_nearest() -> None:
    """A slip of the finger is answered with the name that was meant."""
    with pytest.raises(UnknownNameError, match="torchtune"):
        find_framework("torchtun")


@pytest.mark.parametrize(("version", "sharding"), [("2.2", Sharding.FSDP1), ("2.13.0", Sharding.FSDP2)])
def test_fully_shard_is_of_torch_2_6(version: str, sharding: Sharding) -> None:
    """Before there was one flat parameter for each unit."""
    assert sharding is find_framework("pytorch", version)[0].sharding
