-- The three built-in providers. The default models are the newest generally available ones of their vendors in November 2026, each
-- from the middle of its family: Claude Sonnet 5.5, Gemini 3.8 Flash and GPT-6.1 Sol. A model that is retired later is replaced by a
-- later migration or by an UPDATE. Ids are fixed, so that every installation has the same: UUIDs of version 5, of the provider's
-- name in the namespace of headrace.dev.

-- migrate:up

INSERT INTO provider_configs (id, provider, dialect, enabled, priority, api_url, default_model, created_at, updated_at)
SELECT id, provider, provider, 1, priority, api_url, default_model, now, now
FROM (
  SELECT '06ee8575-f48e-594d-a569-4c0648d64f25' AS id, 'claude' AS provider, 1 AS priority,
    'https://api.anthropic.com' AS api_url, 'claude-sonnet-5-5' AS default_model
  UNION ALL
  SELECT 'd182ccfe-99f7-5e07-877c-82f4b9cf7bea', 'gemini', 2, 'https://generativelanguage.googleapis.com', 'gemini-3.8-flash'
  UNION ALL
  SELECT 'be85aa1f-f180-5307-8f9a-a6cf4a8383ed', 'openai', 3, 'https://api.openai.com/v1', 'gpt-6.1-sol'
) CROSS JOIN (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS now);

-- migrate:down

DELETE FROM provider_configs WHERE id IN ('06ee8575-f48e-594d-a569-4c0648d64f25', 'd182ccfe-99f7-5e07-877c-82f4b9cf7bea', 'be85aa1f-f180-5307-8f9a-a6cf4a8383ed');
