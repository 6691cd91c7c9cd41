//! Reaching the server: the settings that durability rests on, the checks that refuse, and the schema.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::sync::Mutex;

use super::lease::CONNECT;
use super::{Postgres, StoreError, database, within};
use crate::store::OpenMode;

/// The oldest major version that its makers maintain (2026).
const MIN_MAJOR: u32 = 14;
/// Connections of one process, beside the one that has the lock.
const CONNECTIONS: u32 = 5;

/// Step n takes schema n to n + 1, in one transaction together with the new version number. A released step is
/// never edited, because its result is out there.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE ledger (
        seq   bigint PRIMARY KEY CHECK (seq > 0),
        at_ms bigint NOT NULL,
        epoch bigint NOT NULL,
        kind  text NOT NULL CHECK (kind <> ''),
        body  text NOT NULL CHECK (body::json IS NOT NULL)
    );
    CREATE FUNCTION ledger_keeps_what_was_written() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
    CREATE TRIGGER ledger_keeps_what_was_written BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
        FOR EACH STATEMENT EXECUTE FUNCTION ledger_keeps_what_was_written();
    CREATE TABLE lease (
        id         integer PRIMARY KEY CHECK (id = 1),
        epoch      bigint NOT NULL,
        owner      text,
        expires_ms bigint NOT NULL,
        locked     boolean NOT NULL
    );
    INSERT INTO lease VALUES (1, 0, NULL, 0, false);
    CREATE TABLE command (
        id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        key   text NOT NULL UNIQUE,
        at_ms bigint NOT NULL,
        body  text NOT NULL CHECK (body::json IS NOT NULL)
    );
"];

#[expect(clippy::cast_possible_wrap, reason = "a handful of steps")]
const SCHEMA: i64 = MIGRATIONS.len() as i64;

impl Postgres {
    pub(in crate::store) async fn open(url: &str, schema: &str, mode: OpenMode) -> Result<Self, StoreError> {
        const ACTION: &str = "open the ledger";
        // The error would quote the address, and with it the password.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            StoreError::BadAddress("it is not `postgres://USER:PASSWORD@HOST:PORT/DATABASE`".to_owned())
        })?;
        let place = format!(
            "postgres://{}:{}/{}, schema {schema}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_else(|| options.get_username())
        );
        let options = options.application_name("hydromesh").disable_statement_logging();
        let settings: Arc<str> = settings(schema, mode).into();
        // Asked for directly: a pool would go on trying a server that refuses.
        let mut connection = connect(&options, &settings, ACTION).await?;
        let opened = async {
            refuse_unsafe(&mut connection, &place).await?;
            if mode == OpenMode::ReadWrite {
                prepare(&mut connection, &place, schema).await?;
            }
            match identify(&mut connection, &place, schema).await? {
                0 => Err(StoreError::Absent { place: place.clone() }),
                found if found < SCHEMA => Err(StoreError::OlderSchema { place: place.clone(), found }),
                _ => Ok(()),
            }
        };
        let opened = opened.await;
        let _ = connection.close().await;
        opened?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .after_connect({
                let settings = Arc::clone(&settings);
                move |connection, _| {
                    let settings = Arc::clone(&settings);
                    Box::pin(async move {
                        sqlx::raw_sql(AssertSqlSafe(settings.to_string())).execute(connection).await.map(drop)
                    })
                }
            })
            .connect_lazy_with(options.clone());
        Ok(Self { place, mode, schema: schema.to_owned(), options, settings, pool, held: Mutex::new(None) })
    }
}

/// Names cannot be parameters of statements.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the settings that each session begins with. They are statements and not part of the greeting, of which poolers
/// let only some pass.
fn settings(schema: &str, mode: OpenMode) -> String {
    let read_only = if mode == OpenMode::ReadOnly { "on" } else { "off" };
    format!(
        // A server may be told to forget the last commits in a crash; a fact that was acknowledged must not vanish. A stopped
        // process must not keep the others waiting for ever.
        "SET search_path TO {}; SET synchronous_commit = on; SET lock_timeout = '10s';
         SET idle_in_transaction_session_timeout = '10s'; SET tcp_keepalives_idle = 15;
         SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
         SET default_transaction_read_only = {read_only}",
        quoted(schema)
    )
}

/// Connects within a bounded time.
pub(super) async fn connect(
    options: &PgConnectOptions,
    settings: &str,
    action: &'static str,
) -> Result<PgConnection, StoreError> {
    let connected = within(CONNECT, async {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::raw_sql(AssertSqlSafe(settings.to_owned())).execute(&mut connection).await?;
        Ok(connection)
    });
    connected.await.map_err(database(action))
}

/// Refuses a server that is too old, or that is set to lose what it acknowledged.
async fn refuse_unsafe(connection: &mut PgConnection, place: &str) -> Result<(), StoreError> {
    const ACTION: &str = "ask the server for its settings";
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
                current_setting('fsync'), current_setting('full_page_writes')",
    )
    .fetch_one(connection)
    .await
    .map_err(database(ACTION))?;
    let number: i32 = row.get(0);
    if u32::try_from(number / 10_000).unwrap_or(0) < MIN_MAJOR {
        return Err(StoreError::OldPostgres { found: row.get(1), needed: MIN_MAJOR });
    }
    for (at, name) in [(2, "fsync"), (3, "full_page_writes")] {
        if row.get::<&str, _>(at) != "on" {
            let what = format!("the server's `{name}` is off");
            return Err(StoreError::Unsafe { place: place.to_owned(), what });
        }
    }
    Ok(())
}

/// Brings a new or older schema up to date. Refuses before it changes anything.
async fn prepare(connection: &mut PgConnection, place: &str, schema: &str) -> Result<(), StoreError> {
    const ACTION: &str = "prepare the ledger";
    let mut tx = connection.begin().await.map_err(database(ACTION))?;
    // Two first starts at once would both create the schema.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('hydromesh'), hashtext($1))")
        .bind(schema)
        .execute(&mut *tx)
        .await
        .map_err(database(ACTION))?;
    let found = identify(&mut tx, place, schema).await?;
    if found == SCHEMA {
        return Ok(());
    }
    let is_there: bool = sqlx::query_scalar("SELECT exists (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *tx)
        .await
        .map_err(database(ACTION))?;
    if !is_there {
        let create = format!("CREATE SCHEMA {}", quoted(schema));
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *tx).await.map_err(database(ACTION))?;
    }
    for (_, step) in (0..).zip(MIGRATIONS).filter(|(from, _)| *from >= found) {
        sqlx::raw_sql(step).execute(&mut *tx).await.map_err(database(ACTION))?;
    }
    let version = format!(
        "CREATE TABLE IF NOT EXISTS hydromesh_ledger (id integer PRIMARY KEY CHECK (id = 1), version bigint NOT NULL);
         INSERT INTO hydromesh_ledger VALUES (1, {SCHEMA}) ON CONFLICT (id) DO UPDATE SET version = {SCHEMA}"
    );
    sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *tx).await.map_err(database(ACTION))?;
    tx.commit().await.map_err(database(ACTION))
}

/// Returns the schema's number, 0 where there is none yet.
async fn identify(connection: &mut PgConnection, place: &str, schema: &str) -> Result<i64, StoreError> {
    const ACTION: &str = "look for the ledger";
    let row = sqlx::query(
        "SELECT exists (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'hydromesh_ledger'),
                exists (SELECT FROM pg_tables WHERE schemaname = $1)",
    )
    .bind(schema)
    .fetch_one(&mut *connection)
    .await
    .map_err(database(ACTION))?;
    let (ours, any): (bool, bool) = (row.get(0), row.get(1));
    if !ours {
        return if any { Err(StoreError::NotALedger { place: place.to_owned() }) } else { Ok(0) };
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT version FROM hydromesh_ledger")
        .fetch_optional(&mut *connection)
        .await
        .map_err(database(ACTION))?;
    match version {
        None => Err(StoreError::NotALedger { place: place.to_owned() }),
        Some(found) if found > SCHEMA => {
            Err(StoreError::NewerSchema { place: place.to_owned(), found, supported: SCHEMA })
        }
        Some(found) => Ok(found),
    }
}

/// Returns the last number and the highest epoch.
pub(super) async fn extent(pool: &PgPool) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query("SELECT coalesce(max(seq), 0), coalesce(max(epoch), 0) FROM ledger")
        .fetch_one(pool)
        .await?;
    Ok((row.get(0), row.get(1)))
}
