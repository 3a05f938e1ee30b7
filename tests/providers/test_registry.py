import typing

import pytest

from headrace_server.domain.provider import Dialect as Name
from headrace_server.domain.provider import Provider, ProviderSettings
from headrace_server.providers.registry import DIALECTS, dialect_for


def provider(dialect: Name, api: str) -> Provider:
    return Provider(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        provider="p",
        dialect=dialect,
        api_url="http://127.0.0.1",
        default_model="m",
        config=ProviderSettings.model_validate({"api": api}),
        created_at=0,
        updated_at=0,
    )


APIS = typing.get_args(ProviderSettings.model_fields["api"].annotation)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("dialect", list(Name))
def test_dialect_is_found_when_a_provider_names_it(dialect: Name, api: str) -> None:
    assert dialect_for(provider(dialect, api)).default_api_url.startswith("https://")


def test_api_chooses_the_dialect_only_when_it_has_several() -> None:
    chat, responses = (dialect_for(provider(Name.OPENAI, api)) for api in APIS)
    assert type(chat) is not type(responses)
    assert dialect_for(provider(Name.CLAUDE, "chat")) is dialect_for(provider(Name.CLAUDE, "responses"))


def test_every_row_is_reached_when_all_providers_are_asked_for() -> None:
    assert {id(dialect_for(provider(name, api))) for name in Name for api in APIS} == {id(dialect) for dialect in DIALECTS.values()}
