-- Lists of one provider's requests, or of those that failed in one way, walked all requests by their time until the page was full: with a
-- million rows and a rare provider that took half a minute.

-- migrate:up

CREATE INDEX provider_logs_provider_created_at ON provider_logs (provider, created_at);
CREATE INDEX provider_logs_error_code_created_at ON provider_logs (error_code, created_at) WHERE error_code IS NOT NULL;

-- migrate:down

DROP INDEX provider_logs_error_code_created_at;
DROP INDEX provider_logs_provider_created_at;
