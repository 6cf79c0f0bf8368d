-- Made by `python -m tests.stores.schema`; the source is sidecar/stores/postgres_schema.py.

-- Run it as the owner of the schema-to-be, in one transaction: psql -1 -v ON_ERROR_STOP=1 -f schema.sql

CREATE SCHEMA tokensidecar;
REVOKE ALL ON SCHEMA tokensidecar FROM PUBLIC;

CREATE TABLE tokensidecar.store (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  id text NOT NULL CHECK (id <> ''),          -- made once; another id is another store
  version integer NOT NULL,                   -- of this schema
  oldest integer NOT NULL,                    -- the oldest program that works on it, by the schema that it knows
  revocations bigint NOT NULL DEFAULT 0       -- revision of the newest revocation
);

CREATE TABLE tokensidecar.documents (
  name text PRIMARY KEY,
  revision bigint NOT NULL CHECK (revision > 0),
  content bytea NOT NULL
);

CREATE TABLE tokensidecar.members (
  instance text PRIMARY KEY,                  -- of one process, random
  role text NOT NULL,
  version text NOT NULL,
  host text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON tokensidecar.members (seen);

CREATE TABLE tokensidecar.revocations (
  digest bytea PRIMARY KEY CHECK (octet_length(digest) = 16),
  kind smallint NOT NULL,                     -- 1 token, 2 subject, 3 family
  before bigint NOT NULL,                     -- seconds since the epoch, as all times here
  until bigint NOT NULL,
  revision bigint NOT NULL UNIQUE
);
CREATE INDEX ON tokensidecar.revocations (until);

CREATE TABLE tokensidecar.consumed (
  token bytea PRIMARY KEY CHECK (octet_length(token) = 16),
  request bytea NOT NULL,
  until bigint NOT NULL
);
CREATE INDEX ON tokensidecar.consumed (until);

CREATE TABLE tokensidecar.families (
  digest bytea PRIMARY KEY CHECK (octet_length(digest) = 16),
  current text NOT NULL,                      -- the refresh token that may be spent
  spent text NOT NULL,                        -- the one that was spent for it
  spent_time double precision NOT NULL,
  until bigint NOT NULL
);
CREATE INDEX ON tokensidecar.families (until);

CREATE FUNCTION tokensidecar.now() RETURNS double precision LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT extract(epoch FROM clock_timestamp())::double precision $$;

-- Never weaker than the primary's own disk; whoever set remote_apply keeps it.
CREATE FUNCTION tokensidecar.make_durable() RETURNS void LANGUAGE sql VOLATILE AS $$
  SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
  WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')
$$;

-- Compare-and-set: whether the document was at revision p_expected (0: none) and is at the next one now.
CREATE FUNCTION tokensidecar.save(p_name text, p_content bytea, p_expected bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM tokensidecar.make_durable();
  IF p_expected = 0 THEN
    INSERT INTO tokensidecar.documents VALUES (p_name, 1, p_content) ON CONFLICT DO NOTHING;
  ELSE
    UPDATE tokensidecar.documents SET revision = revision + 1, content = p_content
    WHERE name = p_name AND revision = p_expected;
  END IF;
  IF FOUND THEN
    PERFORM pg_notify('tokensidecar', '');
  END IF;
  RETURN FOUND;
END $$;

-- Says that a process is there. Not durable: the next one comes in a minute.
CREATE FUNCTION tokensidecar.present(p_instance text, p_role text, p_version text, p_host text) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  INSERT INTO tokensidecar.members (instance, role, version, host)
  VALUES (left(p_instance, 64), left(p_role, 64), left(p_version, 64), left(p_host, 255))
  ON CONFLICT (instance) DO UPDATE
  SET role = excluded.role, version = excluded.version, host = excluded.host, seen = clock_timestamp();
END $$;

-- Holds a revocation, and gives a revision at which it is held.
-- The row of `store` is locked before the next revision is taken, and until the commit: revisions become visible in their order.
CREATE FUNCTION tokensidecar.revoke(p_kind smallint, p_digest bytea, p_before bigint, p_until bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_revision bigint;
BEGIN
  PERFORM tokensidecar.make_durable();
  PERFORM 1 FROM tokensidecar.store FOR UPDATE;
  SELECT revision INTO v_revision FROM tokensidecar.revocations
  WHERE digest = p_digest AND before >= p_before AND until >= p_until;
  IF FOUND THEN
    RETURN v_revision;
  END IF;
  UPDATE tokensidecar.store SET revocations = revocations + 1 RETURNING revocations INTO STRICT v_revision;
  INSERT INTO tokensidecar.revocations AS held (digest, kind, before, until, revision)
  VALUES (p_digest, p_kind, p_before, p_until, v_revision)
  ON CONFLICT (digest) DO UPDATE
  SET before = greatest(held.before, excluded.before), until = greatest(held.until, excluded.until), revision = excluded.revision;
  PERFORM pg_notify('tokensidecar', '');
  RETURN v_revision;
END $$;

-- Whether this call, or an earlier one with the same request, consumed the token.
CREATE FUNCTION tokensidecar.consume(p_token bytea, p_request bytea, p_until bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM tokensidecar.make_durable();
  IF p_until <= tokensidecar.now() THEN
    RETURN false;
  END IF;
  INSERT INTO tokensidecar.consumed VALUES (p_token, p_request, p_until) ON CONFLICT DO NOTHING;
  IF FOUND THEN
    RETURN true;
  END IF;
  RETURN p_request <> ''::bytea
    AND EXISTS (SELECT FROM tokensidecar.consumed WHERE token = p_token AND request = p_request);
END $$;

-- Spends a refresh token. The family's row is locked first; whoever comes second sees what the first one did.
CREATE FUNCTION tokensidecar.spend(
  p_kind smallint, p_family bytea, p_before bigint, p_until bigint, p_token text, p_successor text, p_first boolean,
  p_bars bytea[], p_issued bigint[], p_grace double precision,
  OUT turn text, OUT successor text, OUT spent_time double precision
) LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_family tokensidecar.families%ROWTYPE;
  v_known boolean;
  v_now double precision;
BEGIN
  PERFORM tokensidecar.make_durable();
  successor := '';
  spent_time := 0;
  LOOP
    SELECT * INTO v_family FROM tokensidecar.families WHERE digest = p_family FOR UPDATE;
    v_known := FOUND;
    v_now := tokensidecar.now();
    IF p_until <= v_now OR EXISTS (
      SELECT FROM unnest(p_bars, p_issued) AS bar(digest, issued)
      JOIN tokensidecar.revocations AS held USING (digest) WHERE held.before >= bar.issued
    ) THEN
      turn := 'revoked';
      RETURN;
    END IF;
    IF v_known AND v_family.current = p_token THEN
      UPDATE tokensidecar.families
      SET current = p_successor, spent = p_token, spent_time = v_now, until = greatest(until, p_until) WHERE digest = p_family;
      turn := 'rotated';
      successor := p_successor;
      spent_time := v_now;
      RETURN;
    END IF;
    IF v_known AND v_family.spent = p_token AND v_now - v_family.spent_time <= p_grace THEN
      turn := 'repeated';
      successor := v_family.current;
      spent_time := v_family.spent_time;
      RETURN;
    END IF;
    IF v_known OR NOT p_first THEN
      PERFORM tokensidecar.revoke(p_kind, p_family, p_before, p_until);
      turn := 'reused';
      RETURN;
    END IF;
    INSERT INTO tokensidecar.families VALUES (p_family, p_successor, p_token, v_now, p_until) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      turn := 'rotated';
      successor := p_successor;
      spent_time := v_now;
      RETURN;
    END IF;
  END LOOP;  -- somebody began the family at the same moment: look again
END $$;

-- Deletes what is over, at most so many rows of each table. Rows that somebody works on are left for the next time.
CREATE FUNCTION tokensidecar.forget(p_limit integer) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_now double precision := tokensidecar.now();
  v_rows bigint;
  v_all bigint := 0;
BEGIN
  DELETE FROM tokensidecar.revocations WHERE digest IN
    (SELECT digest FROM tokensidecar.revocations WHERE until <= v_now ORDER BY until LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  v_all := v_all + v_rows;
  DELETE FROM tokensidecar.consumed WHERE token IN
    (SELECT token FROM tokensidecar.consumed WHERE until <= v_now ORDER BY until LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  v_all := v_all + v_rows;
  DELETE FROM tokensidecar.families WHERE digest IN
    (SELECT digest FROM tokensidecar.families WHERE until <= v_now ORDER BY until LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  v_all := v_all + v_rows;
  DELETE FROM tokensidecar.members WHERE instance IN
    (SELECT instance FROM tokensidecar.members WHERE seen < clock_timestamp() - interval '10 minutes'
     ORDER BY seen LIMIT p_limit FOR UPDATE SKIP LOCKED);
  RETURN v_all;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tokensidecar FROM PUBLIC;

INSERT INTO tokensidecar.store (id, version, oldest) VALUES (replace(pg_catalog.gen_random_uuid()::text, '-', ''), 1, 1);

DO $$
DECLARE
  v_role text;
BEGIN
  FOREACH v_role IN ARRAY ARRAY['tokensidecar_read', 'tokensidecar_write', 'tokensidecar_keeper'] LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_role);
    EXECUTE format('GRANT USAGE ON SCHEMA tokensidecar TO %I', v_role);
    EXECUTE format('GRANT SELECT ON tokensidecar.store, tokensidecar.documents, tokensidecar.revocations, tokensidecar.members TO %I', v_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION tokensidecar.now, tokensidecar.present TO %I', v_role);
    CONTINUE WHEN v_role = 'tokensidecar_read';
    EXECUTE format('GRANT EXECUTE ON FUNCTION tokensidecar.revoke, tokensidecar.consume, tokensidecar.spend TO %I', v_role);
    CONTINUE WHEN v_role = 'tokensidecar_write';
    EXECUTE format('GRANT EXECUTE ON FUNCTION tokensidecar.save, tokensidecar.forget TO %I', v_role);
  END LOOP;
END $$;
