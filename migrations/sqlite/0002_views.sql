-- What engineers ask most, as views. All rates are in percent; averages leave out rows without a value.

-- migrate:up

-- Per provider and model, over the last 7 days.
CREATE VIEW provider_success_rate AS
SELECT
  provider,
  model,
  count(*) AS total_requests,
  sum(success) AS successful_requests,
  100.0 * sum(success) / count(*) AS success_rate,
  avg(total_duration) AS avg_duration,
  avg(first_token_latency) AS avg_first_token_latency,
  sum(total_tokens) AS total_tokens,
  100.0 * sum(retry_count > 0) / count(*) AS retry_rate,
  100.0 * sum(is_fallback) / count(*) AS fallback_rate
FROM provider_metrics
WHERE created_at >= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 7 * 86400000
GROUP BY provider, model
ORDER BY provider, model;

-- Per provider and hour, over the last 24 hours, newest first. `hour` is the time at which the hour began.
CREATE VIEW provider_performance_hourly AS
SELECT
  provider,
  created_at / 3600000 * 3600000 AS hour,
  count(*) AS request_count,
  avg(total_duration) AS avg_duration,
  avg(first_token_latency) AS avg_first_token_latency,
  sum(total_tokens) AS total_tokens,
  100.0 * sum(retry_count > 0) / count(*) AS retry_rate,
  100.0 * sum(is_fallback) / count(*) AS fallback_rate
FROM provider_metrics
WHERE created_at >= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000
GROUP BY provider, created_at / 3600000
ORDER BY hour DESC, provider;

-- Requests that failed, newest first: one line per request, however many providers were tried.
CREATE VIEW provider_failed_requests AS
SELECT
  id,
  request_id,
  provider,
  model,
  state,
  error_message,
  error_code,
  retry_attempt,
  created_at,
  duration AS total_duration
FROM provider_logs
WHERE state = 'failed'
ORDER BY created_at DESC, id DESC;

-- migrate:down

DROP VIEW provider_failed_requests;
DROP VIEW provider_performance_hourly;
DROP VIEW provider_success_rate;
