-- The roles of a Token Sidecar database. Run it once, as a role that may make roles; again does no harm.
--   psql -v ON_ERROR_STOP=1 -f roles.sql
-- Then make the schema as tokensidecar_owner (schema.sql), and a login for each kind of process, for example
--   CREATE ROLE orders LOGIN PASSWORD … IN ROLE tokensidecar_read;
DO $$
DECLARE
  v_role text;
BEGIN
  FOREACH v_role IN ARRAY ARRAY['tokensidecar_owner', 'tokensidecar_read', 'tokensidecar_write', 'tokensidecar_keeper'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
    END IF;
  END LOOP;
END $$;

COMMENT ON ROLE tokensidecar_owner IS 'owns the schema tokensidecar; only migrations need it';
COMMENT ON ROLE tokensidecar_read IS 'a sidecar that issues and validates: reads, and says that it is there';
COMMENT ON ROLE tokensidecar_write IS 'a sidecar whose tokens can be taken back, refreshed or used once; changes no key';
COMMENT ON ROLE tokensidecar_keeper IS 'a keeper: changes keys, and removes what has expired';
