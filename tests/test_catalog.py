"""Which providers a request may be sent to, and how they are read and changed while the service runs."""

import uuid
from typing import Any

import pytest
from pydantic import SecretStr

from headrace_server.catalog import Catalog
from headrace_server.domain.errors import Refusal, Subreason
from headrace_server.domain.provider import Provider, ProviderRow, ProviderSource
from headrace_server.store.memory import MemoryStore
from support.engine import START, PlainCipher, provider, request

KEYS = {name: SecretStr(f"key-of-{name}") for name in ("claude", "gemini", "openai")}


@pytest.fixture
async def make_catalog():
    """Make a catalog over a new store, which holds the built-in providers, and these of the file."""
    stores: list[MemoryStore] = []

    async def make(*from_file: Provider, **options: Any) -> Catalog:
        store = MemoryStore(node="node-1", clock=lambda: START)
        await store.open()
        stores.append(store)
        catalog = Catalog(store, PlainCipher(), from_file=from_file, **options)
        await catalog.load()
        return catalog

    yield make
    for store in stores:
        await store.close()


def row(name: str, **fields: Any) -> ProviderRow:
    plain = {"id": str(uuid.uuid4()), "provider": name, "dialect": "openai", "api_url": f"http://{name}.test", "default_model": "m"}
    return ProviderRow.model_validate(plain | {"created_at": START, "updated_at": START} | fields)


def changed_row(catalog: Catalog, name: str, **changes: Any) -> ProviderRow:
    stored = catalog.get(name).model_dump(include=set(ProviderRow.model_fields))
    return ProviderRow.model_validate(stored | changes)


def chain(catalog: Catalog, **fields: Any) -> list[str]:
    return [chosen.provider for chosen, _ in catalog.route(request(**({"provider": None} | fields)))]


# ---------------------------------------------------------------- routing


async def test_lowest_priority_number_goes_first_when_the_request_names_nobody(make_catalog):
    catalog = await make_catalog(provider("late", priority=9), provider("first", priority=0), environment_keys=KEYS)

    assert chain(catalog) == ["first", "claude", "gemini", "openai", "late"]


async def test_named_provider_goes_first_whatever_its_priority(make_catalog):
    catalog = await make_catalog(provider("late", priority=9), environment_keys=KEYS)

    assert chain(catalog, provider="late") == ["late", "claude", "gemini", "openai"]


async def test_healthier_one_goes_first_among_providers_of_equal_priority(make_catalog):
    health = {"slow": (0.0, 900.0), "failing": (0.5, 10.0), "well": (0.0, 20.0), "worse": (1.0, 0.0)}
    providers = (provider("failing", priority=5), provider("slow", priority=5), provider("well", priority=5), provider("worse", priority=4))
    catalog = await make_catalog(*providers, health_rank=lambda name: health.get(name, (0.0, 0.0)))

    assert chain(catalog) == ["worse", "well", "slow", "failing"]


async def test_provider_that_is_disabled_or_lacks_its_key_is_not_chosen(make_catalog):
    catalog = await make_catalog(provider("off", priority=0, enabled=False), environment_keys={"openai": KEYS["openai"]})

    assert chain(catalog) == ["openai"]


async def test_request_is_refused_when_no_provider_is_ready(make_catalog):
    catalog = await make_catalog()

    with pytest.raises(Refusal) as caught:
        catalog.route(request(provider=None))

    assert caught.value.fault.subreason == Subreason.NO_API_KEY


async def test_unknown_provider_is_refused_by_name(make_catalog):
    catalog = await make_catalog()

    with pytest.raises(Refusal, match="nobody") as caught:
        catalog.route(request(provider="nobody"))

    assert caught.value.fault.subreason == Subreason.PROVIDER_NOT_FOUND


async def test_fallbacks_are_the_requests_then_the_providers_own_then_all_by_priority(make_catalog):
    own = provider("own", fallback_providers=("openai", "claude"))
    catalog = await make_catalog(own, environment_keys=KEYS)

    assert chain(catalog, provider="own", fallback={"providers": ["gemini", "own", "openai"]}) == ["own", "gemini", "openai"]
    assert chain(catalog, provider="own") == ["own", "openai", "claude"]
    assert chain(catalog, provider="claude") == ["claude", "gemini", "openai", "own"]


async def test_nobody_stands_in_when_fallback_is_turned_off(make_catalog):
    catalog = await make_catalog(environment_keys=KEYS)

    assert chain(catalog, fallback={"enabled": False, "providers": ["gemini"]}) == ["claude"]


async def test_model_is_the_requests_the_mapped_one_or_the_providers_default(make_catalog):
    catalog = await make_catalog(provider("first", priority=0), environment_keys=KEYS)

    asked = request(provider="first", model="big", fallback={"providers": ["claude", "gemini"], "model_mapping": {"big": "large"}})
    assert [model for _, model in catalog.route(asked)] == ["big", "large", "large"]
    assert catalog.route(request(provider="first"))[0][1] == "first-model"
    assert catalog.route(request(provider="claude"))[0][1] == catalog.get("claude").default_model


# ---------------------------------------------------------------- reading and changing


async def test_provider_of_the_file_hides_the_stored_one_of_its_name(make_catalog):
    catalog = await make_catalog(provider("claude", default_model="mine", source=ProviderSource.FILE))

    assert (catalog.get("claude").default_model, catalog.get("claude").source) == ("mine", ProviderSource.FILE)
    assert [p.provider for p in catalog.all()] == ["gemini", "openai", "claude"]


async def test_new_provider_serves_the_next_request_with_its_key_sealed_in_the_store(make_catalog):
    catalog = await make_catalog()

    await catalog.create(row("local", priority=0), SecretStr("sk-new"))

    chosen, _ = catalog.route(request(provider=None))[0]
    assert (chosen.provider, chosen.api_key) == ("local", SecretStr("sk-new"))
    assert chosen.api_key_encrypted == "local=sk-new"


async def test_change_is_effective_for_the_next_request_and_keeps_the_key(make_catalog):
    catalog = await make_catalog()
    before = await catalog.create(row("local", priority=0), SecretStr("sk-new"))

    await catalog.update(changed_row(catalog, "local", default_model="bigger"), None)

    chosen, model = catalog.route(request(provider=None))[0]
    assert (chosen.provider, model, chosen.api_key) == ("local", "bigger", SecretStr("sk-new"))
    assert before.default_model == "m"


async def test_change_is_refused_when_the_name_is_taken_unknown_or_of_the_file(make_catalog):
    catalog = await make_catalog(provider("mine", source=ProviderSource.FILE))

    for change, name, why in [
        (catalog.create, "claude", Subreason.ALREADY_EXISTS),
        (catalog.create, "mine", Subreason.ALREADY_EXISTS),
        (catalog.update, "nobody", Subreason.PROVIDER_NOT_FOUND),
        (catalog.update, "mine", Subreason.PROVIDER_IN_FILE),
    ]:
        with pytest.raises(Refusal) as caught:
            await change(row(name), None)
        assert caught.value.fault.subreason == why


async def test_change_is_refused_by_field_when_a_fallback_is_unknown_or_the_provider_itself(make_catalog):
    catalog = await make_catalog()

    with pytest.raises(Refusal) as caught:
        await catalog.create(row("local", fallback_providers=("claude", "nobody", "local")), None)

    assert [v.field for v in caught.value.fault.violations] == ["provider.fallback_providers[1]", "provider.fallback_providers[2]"]
    with pytest.raises(Refusal):
        catalog.get("local")


async def test_change_is_refused_by_field_when_a_fallback_is_disabled_named_twice_or_leads_back(make_catalog):
    catalog = await make_catalog(provider("mine", fallback_providers=("claude",)), provider("off", enabled=False))
    stored = catalog.get("claude")

    with pytest.raises(Refusal) as caught:
        await catalog.update(changed_row(catalog, "claude", fallback_providers=("gemini", "off", "gemini", "mine")), None)

    assert {v.field: v.description for v in caught.value.fault.violations} == {
        "provider.fallback_providers[1]": "the provider 'off' is disabled",
        "provider.fallback_providers[2]": "names 'gemini' a second time",
        "provider.fallback_providers[3]": "makes a cycle: claude → mine → claude",
    }
    assert catalog.get("claude") == stored


async def test_fallback_that_became_useless_does_not_stand_in_the_way_of_another_change(make_catalog):
    catalog = await make_catalog(environment_keys=KEYS)
    await catalog.create(row("local", fallback_providers=("claude", "gemini")), None)
    await catalog.update(changed_row(catalog, "claude", enabled=False), None)

    changed = await catalog.update(changed_row(catalog, "local", priority=0), None, sets_fallbacks=False)

    assert (changed.priority, changed.fallback_providers) == (0, ("claude", "gemini"))
    assert chain(catalog) == ["local", "claude", "gemini"]


async def test_provider_is_found_no_more_when_it_was_deleted(make_catalog):
    catalog = await make_catalog()
    await catalog.create(row("local"), None)

    await catalog.delete("local")

    assert "local" not in [p.provider for p in catalog.all()]
    await catalog.load()
    assert "local" not in [p.provider for p in catalog.all()]


async def test_deletion_is_refused_when_something_refers_to_the_provider(make_catalog):
    catalog = await make_catalog(provider("mine", source=ProviderSource.FILE, fallback_providers=("gemini",)))
    await catalog.create(row("other", fallback_providers=("openai", "gemini")), None)

    for name, running, subreason, why in [
        ("gemini", 0, Subreason.PROVIDER_IN_USE, "it is a fallback of mine, other"),
        ("claude", 2, Subreason.PROVIDER_IN_USE, "2 running requests may call it"),
        ("mine", 0, Subreason.PROVIDER_IN_FILE, "configuration file"),
        ("nobody", 0, Subreason.PROVIDER_NOT_FOUND, "there is no provider named 'nobody'"),
    ]:
        before = catalog.all()
        with pytest.raises(Refusal, match=why) as caught:
            await catalog.delete(name, running_on=lambda name, running=running: running)
        assert caught.value.fault.subreason == subreason
        assert catalog.all() == before


@pytest.mark.parametrize(
    ("url", "needs"), [("https://api.openai.com/v1", True), ("https://api.anthropic.com", True), ("http://127.0.0.1:8080/v1", False)]
)
def test_key_is_needed_when_the_address_is_a_vendors(url, needs):
    assert provider("p", api_url=url).needs_key is needs
