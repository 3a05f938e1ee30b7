"""The providers there are: those of the configuration file, then those of the store, as one list that requests choose from.

A request takes its provider as it stands at that moment and keeps it: a change is effective for the next request.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pydantic import SecretStr

from headrace_server.domain.errors import ErrorCode, Refusal, Subreason, Violation, invalid
from headrace_server.domain.fallbacks import wrong_fallbacks
from headrace_server.domain.ports import Store
from headrace_server.domain.provider import Provider, ProviderRow, ProviderSource
from headrace_server.domain.request import GenerateRequest


class Cipher(Protocol):
    """How keys are kept in the store."""

    def encrypt(self, provider: str, secret: str) -> str:
        """The stored form of a provider's key."""
        ...

    def decrypt(self, provider: str, token: str) -> str:
        """The key that was stored for this provider."""
        ...


class Catalog:
    """All providers. Changes go to the store first."""

    def __init__(
        self,
        store: Store,
        cipher: Cipher,
        *,
        from_file: Iterable[Provider] = (),
        environment_keys: Mapping[str, SecretStr] | None = None,
        health_rank: Callable[[str], tuple[float, float]] = lambda name: (0.0, 0.0),
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._from_file = {provider.provider: provider for provider in from_file}
        self._environment_keys = environment_keys or {}
        self._health_rank = health_rank
        self._providers: dict[str, Provider] = dict(self._from_file)

    async def load(self) -> None:
        """Read the store's providers."""
        stored = {row.provider: self._with_key(row) for row in await self._store.list_providers()}
        self._providers = {**stored, **self._from_file}

    def _with_key(self, row: ProviderRow) -> Provider:
        if row.api_key_encrypted:
            key: SecretStr | None = SecretStr(self._cipher.decrypt(row.provider, row.api_key_encrypted))
        else:
            key = self._environment_keys.get(row.provider)
        return Provider(**dict(row), api_key=key, source=ProviderSource.STORE)

    # ------------------------------------------------------------ reading

    def all(self) -> list[Provider]:
        """Every provider, by priority, then name."""
        return sorted(self._providers.values(), key=lambda p: (p.priority, p.provider))

    def get(self, name: str) -> Provider:
        """A provider by name. Raises Refusal (PROVIDER_NOT_FOUND)."""
        if (provider := self._providers.get(name)) is None:
            raise Refusal(ErrorCode.INVALID_REQUEST, f"there is no provider named {name!r}", Subreason.PROVIDER_NOT_FOUND)
        return provider

    def route(self, request: GenerateRequest) -> Sequence[tuple[Provider, str]]:
        """The providers that a request may be sent to, in order. Raises Refusal."""
        by_health = sorted(
            (p for p in self._providers.values() if p.is_ready), key=lambda p: (p.priority, *self._health_rank(p.provider), p.provider)
        )
        if request.provider is not None:
            first = self.get(request.provider)
        elif by_health:
            first = by_health[0]
        else:
            raise Refusal(
                ErrorCode.AUTHENTICATION_ERROR,
                "no provider is enabled and has an API key: set ANTHROPIC_API_KEY, GEMINI_API_KEY or OPENAI_API_KEY, or add a provider",
                Subreason.NO_API_KEY,
            )
        model = request.model or first.default_model
        return ((first, model), *self._fallbacks(request, first, model, by_health))

    def _fallbacks(
        self, request: GenerateRequest, first: Provider, model: str, by_health: Sequence[Provider]
    ) -> Iterable[tuple[Provider, str]]:
        wanted = request.fallback
        unknown = [
            Violation(field=f"fallback.providers[{i}]", description=f"there is no provider named {name!r}")
            for i, name in enumerate(wanted.providers)
            if name not in self._providers
        ]
        if unknown:
            raise invalid(unknown)
        if wanted.enabled is False:
            return
        names = wanted.providers or first.fallback_providers or tuple(p.provider for p in by_health)
        seen = {first.provider}
        for name in names:
            provider = self._providers.get(name)
            if provider is not None and name not in seen:
                seen.add(name)
                yield provider, wanted.model_mapping.get(model, provider.default_model)

    # ------------------------------------------------------------ changing

    async def create(self, row: ProviderRow, new_key: SecretStr | None) -> Provider:
        """Add a provider. Raises Refusal."""
        if row.provider in self._providers:
            raise _exists(row.provider)
        self._check_fallbacks(row)
        if not await self._store.create_provider(self._sealed(row, new_key)):
            raise _exists(row.provider)
        await self.load()
        return self.get(row.provider)

    async def update(self, row: ProviderRow, new_key: SecretStr | None, *, sets_fallbacks: bool = True) -> Provider:
        """Replace a provider's row. Without a new key the row's stands. Raises Refusal.

        Fallbacks that are not set now are not checked: what has become of them must not stand in the way of another change.
        """
        self.editable(row.provider)
        if sets_fallbacks:
            self._check_fallbacks(row)
        if not await self._store.update_provider(self._sealed(row, new_key)):
            raise Refusal(ErrorCode.INVALID_REQUEST, f"there is no provider named {row.provider!r}", Subreason.PROVIDER_NOT_FOUND)
        await self.load()
        return self.get(row.provider)

    async def delete(self, name: str, *, running_on: Callable[[str], int] = lambda name: 0) -> None:
        """Remove a provider that nothing refers to, with the counters of its limits. Raises Refusal.

        `running_on` tells how many requests run here that may still call a provider. None can come after it was asked: by then the
        provider is found no more.
        """
        provider = self.editable(name)
        if users := [p.provider for p in self.all() if name in p.fallback_providers]:
            raise _in_use(name, f"it is a fallback of {', '.join(users)}")
        if records := await self._store.count_requests_of(name):
            raise _in_use(name, f"{records:,} rows of the record refer to it")
        self._providers.pop(name, None)
        try:
            if running := running_on(name):
                raise _in_use(name, f"{running:,} running requests may call it")
            # Where there is neither its row nor one that refers to it, another process was faster.
            if not await self._store.delete_provider(name) and (records := await self._store.count_requests_of(name)):
                raise _in_use(name, f"{records:,} rows of the record refer to it by now")
        except BaseException:
            self._providers[name] = provider
            raise

    def editable(self, name: str) -> Provider:
        """A provider that may be changed. Raises Refusal."""
        if (provider := self.get(name)).source is ProviderSource.FILE:
            raise Refusal(
                ErrorCode.INVALID_REQUEST,
                f"the provider {name!r} is defined in the configuration file: change it there",
                Subreason.PROVIDER_IN_FILE,
            )
        return provider

    def _check_fallbacks(self, row: ProviderRow) -> None:
        """Raise the Refusal that names every fallback of a new row that could not stand in."""
        named = {p.provider: p.fallback_providers for p in self._providers.values()} | {row.provider: row.fallback_providers}
        wrong = dict(wrong_fallbacks(row.provider, named))
        for i, name in enumerate(row.fallback_providers):
            if i not in wrong and not self._providers[name].enabled:
                wrong[i] = f"the provider {name!r} is disabled"
        if wrong:
            raise invalid([Violation(field=f"provider.fallback_providers[{i}]", description=text) for i, text in sorted(wrong.items())])

    def _sealed(self, row: ProviderRow, new_key: SecretStr | None) -> ProviderRow:
        """The row with its new key encrypted, or as it is."""
        if new_key is None:
            return row
        return row.model_copy(update={"api_key_encrypted": self._cipher.encrypt(row.provider, new_key.get_secret_value())})


def _exists(name: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_REQUEST, f"there is a provider named {name!r} already", Subreason.ALREADY_EXISTS)


def _in_use(name: str, why: str) -> Refusal:
    message = f"the provider {name!r} is in use: {why}; disable it instead"
    return Refusal(ErrorCode.INVALID_REQUEST, message, Subreason.PROVIDER_IN_USE)
