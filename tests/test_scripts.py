"""Scripts of the fake provider that name several providers, and what comes with them."""

import json
import shlex
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format

from headrace.v1 import request_pb2
from headrace_server.config import Settings
from headrace_server.fake_provider import FakeProvider, Script, Step, find_script, load_ready, load_script, ready_scripts, recipe

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TWO = Script.model_validate(
    {"about": "two", "providers": {"p": {"dialect": "openai", "calls": [{"status": 500}, {"text": "once"}]}, "f": {"dialect": "claude"}}}
)
URLS = {"p": "http://127.0.0.1:1/p/v1", "f": "http://127.0.0.1:1/f"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_each_provider_plays_its_own_list(http: aiohttp.ClientSession) -> None:
    async def ask(url: str) -> tuple[int, Any]:
        async with http.post(url, json=CHAT) as response:
            return response.status, await response.json()

    async with FakeProvider(TWO) as provider:
        p, f = provider.api_url("openai", "p") + "/chat/completions", provider.api_url("claude", "f") + "/v1/messages"
        assert provider.api_urls() == {"p": provider.url + "/p/v1", "f": provider.url + "/f"}
        assert (await ask(p))[0] == 500
        assert (await ask(f))[1]["content"][0]["text"].startswith("You said: hello")
        assert (await ask(p))[1]["choices"][0]["message"]["content"] == "once"
        assert (await ask(p))[1]["choices"][0]["message"]["content"].startswith("You said: hello")

        assert [call.number for call in provider.requests_of("p")] == [0, 2, 3]
        assert [call.number for call in provider.requests_of("f")] == [1]
        async with http.get(provider.url + "/fake/stats") as response:
            stats = await response.json()
    assert stats["providers"] == {"p": 3, "f": 1}
    assert [call["provider"] for call in stats["calls"]] == ["p", "f", "p", "p"]


async def test_provider_speaks_tls_that_nobody_trusts_when_it_is_self_signed(http: aiohttp.ClientSession) -> None:
    providers = {"p": {"dialect": "openai", "self_signed": True}, "f": {"dialect": "openai"}}
    async with FakeProvider(Script.model_validate({"providers": providers})) as provider:
        urls = provider.api_urls()
        assert urls["p"].startswith("https://")
        assert urls["f"].startswith("http://")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.post(urls["p"] + "/chat/completions", json=CHAT)
        async with http.post(urls["p"] + "/chat/completions", json=CHAT, ssl=False) as response:
            assert response.status == 200
    assert [call.provider for call in provider.requests] == ["p"]


async def test_nobody_answers_outside_of_the_prefixes(http: aiohttp.ClientSession) -> None:
    async with FakeProvider(TWO) as provider:
        for path in ("/v1/chat/completions", "/q/v1/chat/completions", "/pp/v1/chat/completions"):
            async with http.post(provider.url + path, json=CHAT) as response:
                assert response.status == 404
        assert provider.requests_of("p") == []


# ---------------------------------------------------------------- files


def test_yaml_and_json_read_alike(tmp_path: Path) -> None:
    told = {"about": "x", "providers": {"p": {"dialect": "gemini", "calls": [{"status": 429, "headers": {"retry-after": "2"}}]}}}
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "a.yaml").write_text(
        "about: x\nproviders:\n  p:\n    dialect: gemini\n    calls:\n      - {status: 429, headers: {retry-after: 2}}\n"
    )
    assert load_script(tmp_path / "a.yaml") == load_script(tmp_path / "a.json") == Script.model_validate(told)


def test_list_in_yaml_is_a_list_of_steps(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("- status: 529\n- text: one\n  times: 0\n")
    assert load_script(tmp_path / "a.yml") == [Step(status=529), Step(text="one", times=0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: {p: {dialect: openai, calls: [{status: 200}, {txt: one}]}}", r"provider p, call 1\.txt: Extra inputs"),
        ("providers: {p: {dialect: openai, calls: [{headers: {a: [1]}}]}}", r"provider p, call 0\.headers\.a: .*string"),
        ("providers: {p: {dialect: cobol}}", r"providers\.p\.dialect: "),
        ("providers: {P: {dialect: openai}}", r"providers\.P\."),
        ("providers: {}", "providers: "),
        ("about: nothing else", "providers: Field required"),
        ("- {status: 529}\n- {status: one}", r"call 1\.status: "),
        ("just words", "a script is a list of calls, or an object"),
        ("", "a script is a list of calls, or an object"),
        ("- {status: 529", "cannot be read: .*line 1"),
        ("- !!python/object/apply:os.system [id]", "cannot be read: could not determine a constructor"),
    ],
)
def test_script_names_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        load_script(file)
    assert str(raised.value).startswith(f"{file}: ")


def test_ready_script_is_found_by_name_and_any_other_by_path(tmp_path: Path) -> None:
    assert find_script("F02") == ready_scripts()["F02"]
    assert find_script(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"


# ---------------------------------------------------------------- the recipe


@pytest.mark.parametrize("name", ready_scripts())
def test_ready_script_makes_a_configuration_and_a_request_that_the_service_takes(name: str) -> None:
    script = load_ready(name)
    assert script.about
    configuration = recipe.configuration(script, {provider: f"http://127.0.0.1:1/{provider}" for provider in script.providers})

    assert tomllib.loads(recipe.to_toml(configuration)) == configuration
    assert set(Settings(**configuration).providers) == set(script.providers)
    wanted = json_format.ParseDict(recipe.request(script), request_pb2.GenerateRequest())
    assert wanted.provider == next(iter(script.providers))


def test_first_provider_is_asked_three_times_and_the_others_once() -> None:
    tables = recipe.configuration(TWO, URLS)["providers"]
    assert {name: (table["api_url"], table["max_retries"], table["priority"]) for name, table in tables.items()} == {
        "p": ("http://127.0.0.1:1/p/v1", 3, 0),
        "f": ("http://127.0.0.1:1/f", 1, 1),
    }
    asked = recipe.request(TWO)
    assert (asked["provider"], asked["fallback"]) == ("p", {"enabled": True, "providers": ["f"]})


def test_script_overrides_the_recipe_field_by_field() -> None:
    script = TWO.model_copy(update={"request": {"max_tokens": 7, "retry": {"initial_delay": "2s"}}, "settings": {"progress_timeout": 3}})
    asked = recipe.request(script, {"fallback": {"enabled": False}})
    assert (asked["max_tokens"], asked["retry"]) == (7, recipe.RETRY | {"initial_delay": "2s"})
    assert asked["fallback"] == {"enabled": False, "providers": ["f"]}
    assert recipe.configuration(script, URLS)["progress_timeout"] == 3


def test_grpcurl_line_holds_the_request() -> None:
    for rpc, inside in (("StreamGenerate", lambda message: message["generate"]), ("Generate", lambda message: message)):
        script = TWO.model_copy(update={"rpc": rpc})
        words = shlex.split(recipe.grpcurl(script))
        assert (words[0], words[-1]) == ("grpcurl", f"headrace.v1.GenerationService/{rpc}")
        assert inside(json.loads(words[words.index("-d") + 1])) == recipe.request(script)


def test_toml_holds_any_text() -> None:
    told = {"a": 'quote " backslash \\ \r\n\t\x7f \x01 水 🌊', "b c": [1, 2.5, True], "providers": {"p": {"x": {"y z": "1"}}}}
    assert tomllib.loads(recipe.to_toml(told)) == told
