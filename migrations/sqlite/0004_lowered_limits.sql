-- A provider may say that less is left of a limit than is counted here. The counter is then raised, and `lowered` tells by how much: the
-- rest of `current_usage` is still the sum of what was settled.

-- migrate:up

ALTER TABLE provider_rate_limits ADD COLUMN lowered INTEGER NOT NULL DEFAULT 0 CHECK (lowered >= 0);

-- migrate:down

ALTER TABLE provider_rate_limits DROP COLUMN lowered;
