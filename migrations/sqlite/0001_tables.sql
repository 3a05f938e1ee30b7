-- The tables of Headrace, for SQLite 3.35 or later.
--
-- Times are integer milliseconds since the epoch (UTC); durations and latencies are milliseconds; ids are UUID text.
-- `revision` is raised by the service with every write. It tells the service's own writes, which set updated_at themselves, from
-- everybody else's, for which the triggers set it.

-- migrate:up

CREATE TABLE provider_configs (
  id                 TEXT PRIMARY KEY NOT NULL,
  provider           TEXT NOT NULL CHECK (provider GLOB '[a-z]*' AND provider NOT GLOB '*[^a-z0-9_-]*' AND length(provider) <= 63),
  dialect            TEXT NOT NULL CHECK (dialect IN ('claude', 'gemini', 'openai')),
  enabled            INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  priority           INTEGER NOT NULL DEFAULT 100 CHECK (priority >= 0),
  api_key_encrypted  TEXT,
  api_url            TEXT NOT NULL CHECK (api_url <> ''),
  default_model      TEXT NOT NULL CHECK (default_model <> ''),
  max_retries        INTEGER NOT NULL DEFAULT 3 CHECK (max_retries >= 1),
  timeout_ms         INTEGER NOT NULL DEFAULT 30000 CHECK (timeout_ms > 0),
  rate_limit_rpm     INTEGER CHECK (rate_limit_rpm > 0),
  rate_limit_tpm     INTEGER CHECK (rate_limit_tpm > 0),
  rate_limit_rpd     INTEGER CHECK (rate_limit_rpd > 0),
  fallback_providers TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(fallback_providers)),
  config_json        TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(config_json)),
  revision           INTEGER NOT NULL DEFAULT 0,
  created_at         INTEGER NOT NULL,
  updated_at         INTEGER NOT NULL
);

CREATE TABLE provider_logs (
  id                  TEXT PRIMARY KEY NOT NULL,
  request_id          TEXT NOT NULL,
  conversation_id     TEXT,
  user_id             TEXT NOT NULL DEFAULT '',
  provider            TEXT NOT NULL DEFAULT ''  -- '' while none is chosen
    CHECK (provider = '' OR (provider GLOB '[a-z]*' AND provider NOT GLOB '*[^a-z0-9_-]*' AND length(provider) <= 63)),
  model               TEXT NOT NULL DEFAULT '',
  state               TEXT NOT NULL
    CHECK (state IN ('idle', 'validating', 'requesting', 'streaming', 'rate_limited', 'retrying', 'completed', 'failed')),
  error_message       TEXT,
  error_code          TEXT CHECK (error_code IN (
    'authentication_error', 'invalid_request', 'rate_limit_exceeded', 'server_error', 'timeout', 'network_error',
    'content_filter', 'model_not_found', 'quota_exceeded', 'unknown_error', 'cancelled', 'interrupted')),
  start_time          INTEGER NOT NULL,
  end_time            INTEGER,
  duration            INTEGER CHECK (duration >= 0),
  retry_attempt       INTEGER NOT NULL DEFAULT 0 CHECK (retry_attempt >= 0),
  tags                TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
  request_fingerprint TEXT NOT NULL DEFAULT '',
  trace_id            TEXT NOT NULL DEFAULT '',
  owner               TEXT NOT NULL DEFAULT '',
  node                TEXT NOT NULL DEFAULT '',
  revision            INTEGER NOT NULL DEFAULT 0,
  created_at          INTEGER NOT NULL,
  updated_at          INTEGER NOT NULL,
  -- The long ones stand last, so that reading the others does not walk through their pages.
  attempts            TEXT NOT NULL DEFAULT '[]',
  transitions         TEXT NOT NULL DEFAULT '[]',
  error_data          TEXT,
  request_data        TEXT,
  response_data       TEXT
);

CREATE TABLE provider_metrics (
  id                  TEXT PRIMARY KEY NOT NULL,
  request_id          TEXT NOT NULL REFERENCES provider_logs (request_id) ON DELETE CASCADE,
  provider            TEXT NOT NULL
    CHECK (provider = '' OR (provider GLOB '[a-z]*' AND provider NOT GLOB '*[^a-z0-9_-]*' AND length(provider) <= 63)),
  model               TEXT NOT NULL,
  input_tokens        INTEGER NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
  output_tokens       INTEGER NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
  total_tokens        INTEGER NOT NULL DEFAULT 0 CHECK (total_tokens >= 0),
  cached_input_tokens INTEGER NOT NULL DEFAULT 0 CHECK (cached_input_tokens >= 0),
  reasoning_tokens    INTEGER NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
  usage_source        TEXT CHECK (usage_source IN ('provider', 'partial', 'estimated')),
  cost_micro_usd      INTEGER,
  first_token_latency INTEGER CHECK (first_token_latency >= 0),
  total_duration      INTEGER CHECK (total_duration >= 0),
  chunks_received     INTEGER NOT NULL DEFAULT 0 CHECK (chunks_received >= 0),
  retry_count         INTEGER NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
  is_fallback         INTEGER NOT NULL DEFAULT 0 CHECK (is_fallback IN (0, 1)),
  fallback_provider   TEXT,
  success             INTEGER NOT NULL CHECK (success IN (0, 1)),
  created_at          INTEGER NOT NULL
);

CREATE TABLE provider_rate_limits (
  id             TEXT PRIMARY KEY NOT NULL,
  provider       TEXT NOT NULL
    CHECK (provider = '' OR (provider GLOB '[a-z]*' AND provider NOT GLOB '*[^a-z0-9_-]*' AND length(provider) <= 63)),
  model          TEXT NOT NULL,
  limit_type     TEXT NOT NULL CHECK (limit_type IN ('requests_per_minute', 'tokens_per_minute', 'requests_per_day')),
  current_usage  INTEGER NOT NULL DEFAULT 0 CHECK (current_usage >= 0),
  previous_usage INTEGER NOT NULL DEFAULT 0 CHECK (previous_usage >= 0),
  reserved       INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  limit_value    INTEGER NOT NULL CHECK (limit_value > 0),
  reset_at       INTEGER NOT NULL,
  revision       INTEGER NOT NULL DEFAULT 0,
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL
);

-- What each attempt under way has reserved, so that the reservations of a dead process can be settled.
CREATE TABLE rate_limit_reservations (
  request_id  TEXT NOT NULL,
  attempt     INTEGER NOT NULL CHECK (attempt >= 0),
  provider    TEXT NOT NULL,
  model       TEXT NOT NULL,
  tokens      INTEGER NOT NULL CHECK (tokens >= 0),
  zone        TEXT NOT NULL,
  limit_types TEXT NOT NULL CHECK (json_valid(limit_types)),  -- JSON array: the counters that hold the reservation
  node        TEXT NOT NULL,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (request_id, attempt)
) WITHOUT ROWID;

CREATE TABLE stream_chunks (
  request_id  TEXT NOT NULL REFERENCES provider_logs (request_id) ON DELETE CASCADE,
  first_index INTEGER NOT NULL CHECK (first_index >= 0),
  chunk_count INTEGER NOT NULL CHECK (chunk_count > 0),
  payload     BLOB NOT NULL,
  created_at  INTEGER NOT NULL,
  PRIMARY KEY (request_id, first_index)
);

CREATE TABLE api_tokens (
  id         TEXT PRIMARY KEY NOT NULL,
  name       TEXT NOT NULL CHECK (name <> ''),
  token_hash TEXT NOT NULL,
  scopes     TEXT NOT NULL CHECK (json_valid(scopes)),  -- JSON array of generate, read, admin
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
);

-- One row per running process. A process whose lease has run out is dead.
CREATE TABLE nodes (
  id          TEXT PRIMARY KEY NOT NULL,
  host        TEXT NOT NULL,
  pid         INTEGER NOT NULL,
  started_at  INTEGER NOT NULL,
  lease_until INTEGER NOT NULL
);

-- Indexes. Where lists are paged newest first, created_at is the second column of the key, so that a page needs no sorting. There
-- are no single indexes on provider_logs.conversation_id, .user_id, .provider and .state, on provider_metrics.provider, nor on
-- provider_rate_limits.provider: each is the first column of a composite one. provider_logs (provider, created_at) was measured and
-- left out: it makes writing a request 14 % dearer, and pages of one provider are found by walking provider_logs_created_at.
CREATE UNIQUE INDEX provider_configs_provider ON provider_configs (provider);
CREATE INDEX provider_configs_enabled ON provider_configs (enabled);
CREATE INDEX provider_configs_priority ON provider_configs (priority);

CREATE UNIQUE INDEX provider_logs_request_id ON provider_logs (request_id);
CREATE INDEX provider_logs_created_at ON provider_logs (created_at);
CREATE INDEX provider_logs_conversation_id_created_at ON provider_logs (conversation_id, created_at);
CREATE INDEX provider_logs_user_id_created_at ON provider_logs (user_id, created_at);
CREATE INDEX provider_logs_provider_state ON provider_logs (provider, state);
CREATE INDEX provider_logs_state_created_at ON provider_logs (state, created_at);

CREATE INDEX provider_metrics_request_id ON provider_metrics (request_id);
CREATE INDEX provider_metrics_created_at ON provider_metrics (created_at);
CREATE INDEX provider_metrics_model ON provider_metrics (model);
CREATE INDEX provider_metrics_success ON provider_metrics (success);
CREATE INDEX provider_metrics_provider_model ON provider_metrics (provider, model);
CREATE INDEX provider_metrics_provider_success ON provider_metrics (provider, success);

CREATE UNIQUE INDEX provider_rate_limits_provider_model_limit_type ON provider_rate_limits (provider, model, limit_type);
CREATE INDEX provider_rate_limits_reset_at ON provider_rate_limits (reset_at);

CREATE INDEX stream_chunks_created_at ON stream_chunks (created_at);
CREATE UNIQUE INDEX api_tokens_token_hash ON api_tokens (token_hash);

-- Triggers. None fires for the service's own writes (they raise `revision`), for an edit that sets updated_at itself, nor for its own
-- update (which changes updated_at), even with recursive triggers on.
CREATE TRIGGER provider_configs_updated_at AFTER UPDATE ON provider_configs FOR EACH ROW
WHEN NEW.revision = OLD.revision AND NEW.updated_at = OLD.updated_at
  AND OLD.updated_at < CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
BEGIN
  UPDATE provider_configs SET updated_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) WHERE id = NEW.id;
END;

CREATE TRIGGER provider_logs_updated_at AFTER UPDATE ON provider_logs FOR EACH ROW
WHEN NEW.revision = OLD.revision AND NEW.updated_at = OLD.updated_at
  AND OLD.updated_at < CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
BEGIN
  UPDATE provider_logs SET updated_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) WHERE id = NEW.id;
END;

CREATE TRIGGER provider_rate_limits_updated_at AFTER UPDATE ON provider_rate_limits FOR EACH ROW
WHEN NEW.revision = OLD.revision AND NEW.updated_at = OLD.updated_at
  AND OLD.updated_at < CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
BEGIN
  UPDATE provider_rate_limits SET updated_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) WHERE id = NEW.id;
END;

-- migrate:down

DROP TABLE nodes;
DROP TABLE api_tokens;
DROP TABLE stream_chunks;
DROP TABLE rate_limit_reservations;
DROP TABLE provider_rate_limits;
DROP TABLE provider_metrics;
DROP TABLE provider_logs;
DROP TABLE provider_configs;
