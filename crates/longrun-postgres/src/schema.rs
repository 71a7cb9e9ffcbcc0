//! The tables, and how they come to be: any number of nodes may open an empty database, or one of an older version, at once.

use std::time::Duration;

use longrun_core::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::OpenError;
use crate::values::At;

/// What leads from each version to the next. A migration is never changed once it is published, runs while operations are in flight, and leaves
/// what programs of the version before it rely on, or says so in [`OLDEST`].
const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/1.sql"),
    include_str!("../migrations/2.sql"),
    include_str!("../migrations/3.sql"),
];
/// Programs that know a lower version must not use tables of the newest.
const OLDEST: i32 = 1;
/// The newest.
pub(crate) const NEWEST: usize = MIGRATIONS.len();

/// A migration may take long, and must not keep others waiting for long before it begins.
const PATIENCE: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 1000";
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Times that a transaction is tried in which another node may be before us.
const TRIES_MAX: usize = 20;

/// Statements of this crate name tables as `longrun.table`. A schema may have the name of a word of SQL.
pub(crate) fn in_schema(sql: &str, schema: &str) -> String {
    if schema == "longrun" { sql.to_owned() } else { sql.replace("longrun.", &format!("\"{schema}\".")) }
}

/// Makes the tables, or brings them to the newest version that the program knows. Gives the secret of the store.
pub(crate) async fn prepare(
    client: &mut Client,
    schema: &str,
    version: usize,
) -> Result<[u8; 32], OpenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match migrate(client, schema, version).await {
            // Of several that make it at once, one is first; the others find it made.
            Err(OpenError::Unreachable(error)) if tries < TRIES_MAX && is_of_others(error.as_ref()) => {
                // Whoever waited behind the attempt has his turn.
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            result => return result,
        }
    }
}

fn is_of_others(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let passes = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::DUPLICATE_TABLE,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        // Others are at it, or use the tables.
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
    ];
    let state = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    state.is_some_and(|state| passes.contains(state))
}

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS longrun.migrations (
        version integer PRIMARY KEY,
        oldest_program integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    LOCK TABLE longrun.migrations IN ACCESS EXCLUSIVE MODE";

async fn migrate(client: &mut Client, schema: &str, version: usize) -> Result<[u8; 32], OpenError> {
    let transaction = client.transaction().await.map_err(unreachable)?;
    let migrations = MIGRATIONS.into_iter().take(version);
    let known = i32::try_from(migrations.len()).unwrap_or(i32::MAX);
    let encoding = transaction.query_one("SELECT current_setting('server_encoding')", &[]).await;
    let encoding: String = encoding.map_err(unreachable)?.get(0);
    if encoding != "UTF8" {
        return Err(OpenError::Encoding(encoding));
    }
    // A node that may use the tables and not make any, or make some and no schema, need not ask for more.
    let there = "SELECT to_regnamespace(quote_ident($1)) IS NOT NULL,
        to_regclass(quote_ident($1) || '.migrations') IS NOT NULL";
    let there = transaction.query_one(there, &[&schema]).await.map_err(unreachable)?;
    let begin = match (there.get(0), there.get(1)) {
        (_, true) => "LOCK TABLE longrun.migrations IN SHARE UPDATE EXCLUSIVE MODE".to_owned(),
        (true, false) => MIGRATIONS_TABLE.to_owned(),
        (false, false) => format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"; {MIGRATIONS_TABLE}"),
    };
    let begin = in_schema(&begin, schema);
    transaction.batch_execute(&begin).await.map_err(unreachable)?;
    let newest = "SELECT version, oldest_program FROM longrun.migrations ORDER BY version DESC LIMIT 1";
    let newest = transaction.query_opt(&in_schema(newest, schema), &[]).await.map_err(unreachable)?;
    let (found, oldest) = newest.map_or((0, 0), |row| (row.get(0), row.get(1)));
    if known < oldest {
        return Err(OpenError::FutureSchema { found, oldest, known });
    }
    if found < known {
        transaction.batch_execute(PATIENCE).await.map_err(unreachable)?;
    }
    for (version, migration) in (1..).zip(migrations).skip_while(|(version, _)| *version <= found) {
        transaction.batch_execute(&in_schema(migration, schema)).await.map_err(unreachable)?;
        let note = "INSERT INTO longrun.migrations (version, oldest_program) VALUES ($1, $2)";
        transaction.execute(&in_schema(note, schema), &[&version, &OLDEST]).await.map_err(unreachable)?;
    }
    if found == 0 {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| OpenError::System(error.to_string()))?;
        let keep = "INSERT INTO longrun.meta (key, value) VALUES ('page-secret', $1)";
        transaction.execute(&in_schema(keep, schema), &[&secret.as_slice()]).await.map_err(unreachable)?;
    }
    let secret = "SELECT value FROM longrun.meta WHERE key = 'page-secret'";
    let secret = transaction.query_opt(&in_schema(secret, schema), &[]).await.map_err(unreachable)?;
    let secret: Option<[u8; 32]> = secret.and_then(|row| row.get::<_, &[u8]>(0).try_into().ok());
    transaction.commit().await.map_err(unreachable)?;
    secret.ok_or(OpenError::Incomplete)
}

pub(crate) fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Unreachable(error.into())
}

/// Before everything that the table can hold.
pub(crate) const BEGINNING: At = At(Timestamp::MIN);
