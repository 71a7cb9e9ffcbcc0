-- What people filter on has a column; payloads are jsonb; what the engine reads back is a record, byte for byte as it was
-- written, because jsonb keeps neither the order of fields nor every number.

CREATE TABLE longrun.meta (
    key text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

-- The engines that share the database. One whose lease has run out is taken for dead.
CREATE TABLE longrun.nodes (
    epoch bigint PRIMARY KEY,
    joined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);

CREATE SEQUENCE longrun.epochs AS bigint;

-- One row for each process that commits. Each batch moves it on, so that what became of a batch can be asked later, and so that a
-- batch whose answer was lost cannot come after the question.
CREATE TABLE longrun.committers (
    id uuid PRIMARY KEY,
    batch bigint NOT NULL,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 20);

CREATE TABLE longrun.operations (
    id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    kind_version bigint NOT NULL,
    description text NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    modified_at timestamptz NOT NULL,
    -- 'pending', 'rolling back', 'succeeded', 'rolled back', 'abandoned'
    phase text NOT NULL,
    error_code text,
    error_message text,
    revision bigint NOT NULL,
    -- When it is to be worked on; NULL when it is done.
    due_at timestamptz,
    done_at timestamptz,
    -- The node that works on it, and the fence of its claim.
    node bigint,
    fence bigint NOT NULL,
    -- Somebody else has changed it, and the node may not know yet.
    visited boolean NOT NULL DEFAULT false,
    -- The newest form of its records.
    format integer NOT NULL,
    CHECK ((due_at IS NULL) <> (done_at IS NULL))
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX operations_due ON longrun.operations (due_at, id) WHERE done_at IS NULL;
CREATE INDEX operations_unclaimed ON longrun.operations (due_at, id) WHERE done_at IS NULL AND node IS NULL;
CREATE INDEX operations_node ON longrun.operations (node) WHERE node IS NOT NULL;
CREATE INDEX operations_visited ON longrun.operations (node) WHERE visited;
CREATE INDEX operations_done ON longrun.operations (done_at, id) WHERE done_at IS NOT NULL;

CREATE TABLE longrun.operation_records (
    operation text COLLATE "C" PRIMARY KEY,
    head bytea NOT NULL,
    request jsonb,
    metadata jsonb,
    response jsonb,
    -- The names of its steps, and what happened to them in the commit that accepted it.
    steps text[] NOT NULL,
    events jsonb NOT NULL
) WITH (fillfactor = 50);

-- What happened since it was accepted, while it is not done.
CREATE TABLE longrun.operation_journal (
    operation text COLLATE "C",
    first bigint,
    revision bigint NOT NULL,
    at timestamptz NOT NULL,
    -- That of the owner who wrote it; NULL when it was somebody else.
    fence bigint,
    record bytea NOT NULL,
    events jsonb NOT NULL,
    PRIMARY KEY (operation, first)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

CREATE TABLE longrun.operation_resources (
    kind text COLLATE "C",
    id text COLLATE "C",
    operation text COLLATE "C",
    PRIMARY KEY (kind, id, operation)
);

CREATE TABLE longrun.resources (
    kind text COLLATE "C",
    id text COLLATE "C",
    parent text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- The name as far as it counts for the order of lists.
    sort_name text COLLATE "C" NOT NULL,
    status text NOT NULL,
    revision bigint NOT NULL,
    -- The operation that holds it.
    operation text COLLATE "C",
    created_at timestamptz NOT NULL,
    modified_at timestamptz NOT NULL,
    body jsonb,
    record bytea NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 70);

CREATE INDEX resources_parent ON longrun.resources (kind, parent, id);
CREATE INDEX resources_name ON longrun.resources (kind, parent, sort_name, id);
CREATE INDEX resources_creation ON longrun.resources (kind, parent, created_at, id);

CREATE TABLE longrun.idempotency (
    digest bytea PRIMARY KEY,
    operation text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    expires_at timestamptz
);

CREATE INDEX idempotency_expiry ON longrun.idempotency (expires_at) WHERE expires_at IS NOT NULL;

-- What resources share outside the database, and who refers to it.
CREATE TABLE longrun.items (
    kind text COLLATE "C",
    id bytea,
    incarnation uuid NOT NULL,
    references_held bigint NOT NULL CHECK (references_held > 0),
    confirmed boolean NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE longrun.item_references (
    resource_kind text COLLATE "C",
    resource_id text COLLATE "C",
    kind text COLLATE "C",
    id bytea,
    incarnation uuid NOT NULL,
    PRIMARY KEY (resource_kind, resource_id, kind, id)
);

CREATE TABLE longrun.orphans (
    operation text COLLATE "C",
    incarnation uuid,
    kind text COLLATE "C",
    id bytea,
    PRIMARY KEY (operation, incarnation, kind, id)
);

-- For people: the steps of each operation, and where each stands.
CREATE VIEW longrun.steps AS
SELECT o.id AS operation,
       s.number - 1 AS step,
       s.name,
       CASE o.phase
           WHEN 'succeeded' THEN 'done'
           WHEN 'rolled back' THEN 'undone, or never run'
           WHEN 'abandoned' THEN 'abandoned'
           ELSE coalesce(last.what, 'waiting')
       END AS state,
       last.at
FROM longrun.operations o
JOIN longrun.operation_records r ON r.operation = o.id
CROSS JOIN LATERAL unnest(r.steps) WITH ORDINALITY AS s (name, number)
LEFT JOIN LATERAL (
    SELECT event ->> 'is' AS what, entry.at
    FROM (
        SELECT 1::bigint AS revision, o.created_at AS at, r.events
        UNION ALL
        SELECT j.revision, j.at, j.events FROM longrun.operation_journal j WHERE j.operation = o.id
    ) entry
    CROSS JOIN LATERAL jsonb_array_elements(entry.events) WITH ORDINALITY AS e (event, place)
    WHERE (event ->> 'step')::bigint = s.number - 1
    ORDER BY entry.revision DESC, e.place DESC
    LIMIT 1
) last ON true;
