"""Every name that spans and metrics carry. The conventions `gen_ai.*` of OpenTelemetry are in development: a rename happens here only.

Source: https://github.com/open-telemetry/semantic-conventions-genai, and the conventions for errors and HTTP.
"""

from typing import Final

# ---------------------------------------------------------------- spans

GENERATE: Final = "generate"
"""Root span of a request, followed by its model."""
RECOVERED: Final = "recovered"
"""Root span of a request that died with its process."""
CHAT: Final = "chat"
"""A provider's call, followed by its model; also the name of the operation."""

# ---------------------------------------------------------------- attributes: conventions

OPERATION: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHED_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"

# ---------------------------------------------------------------- attributes: our own

REQUEST_ID: Final = "headrace.request_id"
STATE: Final = "headrace.state"
FROM_STATE: Final = "headrace.from_state"
EVENT: Final = "headrace.event"
ATTEMPT: Final = "headrace.attempt"
ATTEMPTS: Final = "headrace.attempts"
PROVIDER: Final = "headrace.provider"
MODEL: Final = "headrace.model"
REASON: Final = "headrace.reason"
WAIT_MS: Final = "headrace.wait_ms"
SUBREASON: Final = "headrace.subreason"
REPLAY_SAFETY: Final = "headrace.replay_safety"
USAGE_SOURCE: Final = "headrace.usage_source"
COST_MICRO_USD: Final = "headrace.cost_micro_usd"

# ---------------------------------------------------------------- metrics

REQUESTS: Final = "headrace.requests"
CALLS: Final = "headrace.calls"
RETRIES: Final = "headrace.retries"
FALLBACKS: Final = "headrace.fallbacks"
TOKENS: Final = "headrace.tokens"
UNKNOWN_ERRORS: Final = "headrace.unknown_errors"
UNKNOWN_EVENTS: Final = "headrace.unknown_events"
IN_FLIGHT: Final = "headrace.requests.in_flight"
DURATION: Final = "headrace.request.duration"
FIRST_TOKEN: Final = "headrace.request.first_token"

# ---------------------------------------------------------------- values

WELL_KNOWN_PROVIDERS: Final = {"claude": "anthropic", "gemini": "gcp.gemini"}
"""What the conventions call the providers that are there from the start; any other goes by the name it was given."""
