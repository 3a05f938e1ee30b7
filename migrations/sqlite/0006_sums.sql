-- Sums over a long time, and lists by model and by tag, without reading all rows of their range.
--
-- `usage_sums` holds what the rows of provider_metrics with summed = 1 add up to: by hour; for each user by day and by week; for each tag
-- by day. The service adds rows in batches, some time after they were written; until then whoever asks reads them as rows. A row that is
-- changed or deleted, by whomever, is taken out before that, together with the others of its request; what is left of them is added again
-- with a later batch. Nothing is added here: all rows wait for the service.

-- migrate:up

CREATE INDEX provider_logs_model_created_at ON provider_logs (model, created_at);

-- Which requests bear a tag. Kept by the triggers below.
CREATE TABLE request_tags (
  tag        TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  id         TEXT NOT NULL,  -- of provider_logs
  PRIMARY KEY (tag, created_at, id)
) WITHOUT ROWID;

INSERT INTO request_tags
SELECT DISTINCT tag.value, log.created_at, log.id FROM provider_logs AS log CROSS JOIN json_each(log.tags) AS tag ORDER BY 1, 2, 3;

CREATE TRIGGER provider_logs_tags_added AFTER INSERT ON provider_logs FOR EACH ROW
WHEN NEW.tags <> '[]'
BEGIN
  INSERT INTO request_tags SELECT DISTINCT value, NEW.created_at, NEW.id FROM json_each(NEW.tags);
END;

CREATE TRIGGER provider_logs_tags_changed AFTER UPDATE OF id, tags, created_at ON provider_logs FOR EACH ROW
WHEN NEW.id <> OLD.id OR NEW.tags <> OLD.tags OR NEW.created_at <> OLD.created_at
BEGIN
  DELETE FROM request_tags WHERE tag IN (SELECT value FROM json_each(OLD.tags)) AND created_at = OLD.created_at AND id = OLD.id;
  INSERT INTO request_tags SELECT DISTINCT value, NEW.created_at, NEW.id FROM json_each(NEW.tags);
END;

CREATE TRIGGER provider_logs_tags_deleted AFTER DELETE ON provider_logs FOR EACH ROW
WHEN OLD.tags <> '[]'
BEGIN
  DELETE FROM request_tags WHERE tag IN (SELECT value FROM json_each(OLD.tags)) AND created_at = OLD.created_at AND id = OLD.id;
END;

ALTER TABLE provider_metrics ADD COLUMN summed INTEGER NOT NULL DEFAULT 0 CHECK (summed IN (0, 1));
CREATE INDEX provider_metrics_unsummed ON provider_metrics (created_at) WHERE summed = 0;

CREATE TABLE usage_sums (
  kind                 TEXT NOT NULL CHECK (kind IN ('all', 'user', 'tag')),
  length               INTEGER NOT NULL,  -- of the span of time, in milliseconds
  begin                INTEGER NOT NULL,
  name                 TEXT NOT NULL,  -- of the user or the tag
  provider             TEXT NOT NULL,
  model                TEXT NOT NULL,
  calls                INTEGER NOT NULL,  -- rows of provider_metrics
  -- Requests that have a row here and none before it: at all, of this provider, of this model, of both. Which of these counts each request
  -- once depends on what is told apart: nothing, providers, models, or both.
  requests             INTEGER NOT NULL,
  requests_of_provider INTEGER NOT NULL,
  requests_of_model    INTEGER NOT NULL,
  requests_of_both     INTEGER NOT NULL,
  input_tokens         INTEGER NOT NULL,
  output_tokens        INTEGER NOT NULL,
  total_tokens         INTEGER NOT NULL,
  cached_input_tokens  INTEGER NOT NULL,
  reasoning_tokens     INTEGER NOT NULL,
  -- What a row may lack: how many have it, and their sum.
  costs                INTEGER NOT NULL,
  cost_micro_usd       INTEGER NOT NULL,
  durations            INTEGER NOT NULL,
  total_duration       INTEGER NOT NULL,
  latencies            INTEGER NOT NULL,
  first_token_latency  INTEGER NOT NULL,
  successes            INTEGER NOT NULL,
  retried              INTEGER NOT NULL,
  fallbacks            INTEGER NOT NULL,
  PRIMARY KEY (kind, length, begin, name, provider, model)
) WITHOUT ROWID;

-- What each row of provider_metrics adds to its sums.
CREATE VIEW usage_lines AS
SELECT
  line.rowid AS line,
  line.request_id,
  line.created_at,
  line.summed,
  line.provider,
  line.model,
  1 AS calls,
  NOT EXISTS (SELECT 1 FROM provider_metrics AS earlier WHERE earlier.request_id = line.request_id AND earlier.rowid < line.rowid)
    AS requests,
  NOT EXISTS (SELECT 1 FROM provider_metrics AS earlier WHERE earlier.request_id = line.request_id AND earlier.rowid < line.rowid
    AND +earlier.provider = line.provider) AS requests_of_provider,
  NOT EXISTS (SELECT 1 FROM provider_metrics AS earlier WHERE earlier.request_id = line.request_id AND earlier.rowid < line.rowid
    AND +earlier.model = line.model) AS requests_of_model,
  NOT EXISTS (SELECT 1 FROM provider_metrics AS earlier WHERE earlier.request_id = line.request_id AND earlier.rowid < line.rowid
    AND +earlier.provider = line.provider AND +earlier.model = line.model) AS requests_of_both,
  line.input_tokens,
  line.output_tokens,
  line.total_tokens,
  line.cached_input_tokens,
  line.reasoning_tokens,
  line.cost_micro_usd IS NOT NULL AS costs,
  coalesce(line.cost_micro_usd, 0) AS cost_micro_usd,
  line.total_duration IS NOT NULL AS durations,
  coalesce(line.total_duration, 0) AS total_duration,
  line.first_token_latency IS NOT NULL AS latencies,
  coalesce(line.first_token_latency, 0) AS first_token_latency,
  line.success AS successes,
  line.retry_count > 0 AS retried,
  line.is_fallback AS fallbacks
FROM provider_metrics AS line;

-- The same once for each of its sums. Who deletes from here takes the line out of them.
CREATE VIEW usage_parts AS
SELECT span.kind, span.length, line.created_at / span.length * span.length AS begin, name.value AS name, line.*
FROM usage_lines AS line
JOIN provider_logs AS log ON log.request_id = line.request_id
CROSS JOIN (
  SELECT 'all' AS kind, 3600000 AS length
  UNION ALL SELECT 'user', 86400000
  UNION ALL SELECT 'user', 604800000
  UNION ALL SELECT 'tag', 86400000
) AS span
CROSS JOIN json_each(
  CASE
    WHEN span.kind = 'user' THEN json_array(log.user_id)
    WHEN span.kind = 'tag' AND json_array_length(log.tags) > 0 THEN log.tags
    ELSE '[""]'
  END
) AS name
WHERE name.key = 0 OR NOT EXISTS (SELECT 1 FROM json_each(log.tags) AS same WHERE same.value = name.value AND same.key < name.key);

CREATE TRIGGER usage_parts_taken_out INSTEAD OF DELETE ON usage_parts FOR EACH ROW
BEGIN
  UPDATE usage_sums SET
    calls = calls - OLD.calls,
    requests = requests - OLD.requests,
    requests_of_provider = requests_of_provider - OLD.requests_of_provider,
    requests_of_model = requests_of_model - OLD.requests_of_model,
    requests_of_both = requests_of_both - OLD.requests_of_both,
    input_tokens = input_tokens - OLD.input_tokens,
    output_tokens = output_tokens - OLD.output_tokens,
    total_tokens = total_tokens - OLD.total_tokens,
    cached_input_tokens = cached_input_tokens - OLD.cached_input_tokens,
    reasoning_tokens = reasoning_tokens - OLD.reasoning_tokens,
    costs = costs - OLD.costs,
    cost_micro_usd = cost_micro_usd - OLD.cost_micro_usd,
    durations = durations - OLD.durations,
    total_duration = total_duration - OLD.total_duration,
    latencies = latencies - OLD.latencies,
    first_token_latency = first_token_latency - OLD.first_token_latency,
    successes = successes - OLD.successes,
    retried = retried - OLD.retried,
    fallbacks = fallbacks - OLD.fallbacks
  WHERE (kind, length, begin, name, provider, model) = (OLD.kind, OLD.length, OLD.begin, OLD.name, OLD.provider, OLD.model);
  DELETE FROM usage_sums
  WHERE (kind, length, begin, name, provider, model) = (OLD.kind, OLD.length, OLD.begin, OLD.name, OLD.provider, OLD.model) AND calls = 0;
END;

-- SQLite forbids these triggers to write the row itself; the last one does it afterwards.
CREATE TRIGGER provider_metrics_taken_out BEFORE DELETE ON provider_metrics FOR EACH ROW
WHEN OLD.summed
BEGIN
  DELETE FROM usage_parts WHERE request_id = OLD.request_id AND summed = 1;
  UPDATE provider_metrics SET summed = 0 WHERE request_id = OLD.request_id AND rowid <> OLD.rowid;
END;

CREATE TRIGGER provider_metrics_changing BEFORE UPDATE OF request_id, provider, model, input_tokens, output_tokens, total_tokens,
  cached_input_tokens, reasoning_tokens, cost_micro_usd, first_token_latency, total_duration, retry_count, is_fallback, success, created_at
ON provider_metrics FOR EACH ROW
WHEN OLD.summed
BEGIN
  DELETE FROM usage_parts WHERE request_id = OLD.request_id AND summed = 1;
  UPDATE provider_metrics SET summed = 0 WHERE request_id = OLD.request_id AND rowid <> OLD.rowid;
END;

CREATE TRIGGER provider_metrics_changed AFTER UPDATE OF request_id, provider, model, input_tokens, output_tokens, total_tokens,
  cached_input_tokens, reasoning_tokens, cost_micro_usd, first_token_latency, total_duration, retry_count, is_fallback, success, created_at
ON provider_metrics FOR EACH ROW
WHEN OLD.summed
BEGIN
  UPDATE provider_metrics SET summed = 0 WHERE rowid = NEW.rowid;
END;

-- User and tags must still be there when the metrics go; ON DELETE CASCADE would come after them.
CREATE TRIGGER provider_logs_deleting BEFORE DELETE ON provider_logs FOR EACH ROW
BEGIN
  DELETE FROM provider_metrics WHERE request_id = OLD.request_id;
END;

CREATE TRIGGER provider_logs_changing BEFORE UPDATE OF user_id, tags ON provider_logs FOR EACH ROW
WHEN NEW.user_id <> OLD.user_id OR NEW.tags <> OLD.tags
BEGIN
  DELETE FROM usage_parts WHERE request_id = OLD.request_id AND summed = 1;
  UPDATE provider_metrics SET summed = 0 WHERE request_id = OLD.request_id;
END;

DROP VIEW provider_success_rate;
DROP VIEW provider_performance_hourly;

-- Per provider and model, over the last 7 days.
CREATE VIEW provider_success_rate AS
WITH since AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 7 * 86400000 AS begin),
whole AS (SELECT (begin + 3599999) / 3600000 * 3600000 AS begin FROM since),
part AS (
  SELECT provider, model, calls, successes, durations, total_duration, latencies, first_token_latency, total_tokens, retried, fallbacks
  FROM usage_sums WHERE kind = 'all' AND length = 3600000 AND begin >= (SELECT begin FROM whole)
  UNION ALL
  SELECT provider, model, calls, successes, durations, total_duration, latencies, first_token_latency, total_tokens, retried, fallbacks
  FROM usage_lines WHERE summed = 0 AND created_at >= (SELECT begin FROM whole)
  UNION ALL
  SELECT provider, model, calls, successes, durations, total_duration, latencies, first_token_latency, total_tokens, retried, fallbacks
  FROM usage_lines WHERE created_at >= (SELECT begin FROM since) AND created_at < (SELECT begin FROM whole)
)
SELECT
  provider,
  model,
  sum(calls) AS total_requests,
  sum(successes) AS successful_requests,
  100.0 * sum(successes) / sum(calls) AS success_rate,
  1.0 * sum(total_duration) / nullif(sum(durations), 0) AS avg_duration,
  1.0 * sum(first_token_latency) / nullif(sum(latencies), 0) AS avg_first_token_latency,
  sum(total_tokens) AS total_tokens,
  100.0 * sum(retried) / sum(calls) AS retry_rate,
  100.0 * sum(fallbacks) / sum(calls) AS fallback_rate
FROM part
GROUP BY provider, model
ORDER BY provider, model;

-- Per provider and hour, over the last 24 hours, newest first. `hour` is the time at which the hour began.
CREATE VIEW provider_performance_hourly AS
WITH since AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000 AS begin),
whole AS (SELECT (begin + 3599999) / 3600000 * 3600000 AS begin FROM since),
part AS (
  SELECT provider, begin AS hour, calls, durations, total_duration, latencies, first_token_latency, total_tokens, retried, fallbacks
  FROM usage_sums WHERE kind = 'all' AND length = 3600000 AND begin >= (SELECT begin FROM whole)
  UNION ALL
  SELECT provider, created_at / 3600000 * 3600000, calls, durations, total_duration, latencies, first_token_latency, total_tokens,
    retried, fallbacks
  FROM usage_lines WHERE summed = 0 AND created_at >= (SELECT begin FROM whole)
  UNION ALL
  SELECT provider, created_at / 3600000 * 3600000, calls, durations, total_duration, latencies, first_token_latency, total_tokens,
    retried, fallbacks
  FROM usage_lines WHERE created_at >= (SELECT begin FROM since) AND created_at < (SELECT begin FROM whole)
)
SELECT
  provider,
  hour,
  sum(calls) AS request_count,
  1.0 * sum(total_duration) / nullif(sum(durations), 0) AS avg_duration,
  1.0 * sum(first_token_latency) / nullif(sum(latencies), 0) AS avg_first_token_latency,
  sum(total_tokens) AS total_tokens,
  100.0 * sum(retried) / sum(calls) AS retry_rate,
  100.0 * sum(fallbacks) / sum(calls) AS fallback_rate
FROM part
GROUP BY provider, hour
ORDER BY hour DESC, provider;

-- migrate:down

DROP VIEW provider_performance_hourly;
DROP VIEW provider_success_rate;

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

DROP TRIGGER provider_logs_changing;
DROP TRIGGER provider_logs_deleting;
DROP TRIGGER provider_metrics_changed;
DROP TRIGGER provider_metrics_changing;
DROP TRIGGER provider_metrics_taken_out;
DROP TRIGGER usage_parts_taken_out;
DROP VIEW usage_parts;
DROP VIEW usage_lines;
DROP TABLE usage_sums;
DROP INDEX provider_metrics_unsummed;
ALTER TABLE provider_metrics DROP COLUMN summed;
DROP TRIGGER provider_logs_tags_deleted;
DROP TRIGGER provider_logs_tags_changed;
DROP TRIGGER provider_logs_tags_added;
DROP TABLE request_tags;
DROP INDEX provider_logs_model_created_at;
