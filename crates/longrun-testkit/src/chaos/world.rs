//! The world outside: effects of steps, kept apart from the operations, by who refuses what comes late.

use anyhow::{Context, Result};
use longrun::FencingToken;
use longrun_postgres::tokio_postgres::{self, Client, NoTls};

/// A connection to the world.
#[derive(Debug)]
pub(super) struct World {
    client: Client,
}

/// What the world says of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is so now.
    Done,
    /// Somebody with a higher token was there.
    Late,
}

const TABLES: &str = "CREATE SCHEMA world;
    CREATE TABLE world.effects (
        operation text, step integer, epoch bigint NOT NULL, attempt bigint NOT NULL, there boolean NOT NULL,
        PRIMARY KEY (operation, step)
    );
    CREATE TABLE world.refused (operation text, step integer, epoch bigint, attempt bigint)";

/// What the database itself sees, whatever the nodes say: each claim, at the revision that the operation had; each turn, with
/// the fence of its author.
const WATCH: &str = "CREATE TABLE world.claims (operation text, fence bigint, revision bigint);
    CREATE TABLE world.turns (operation text, fence bigint, revision bigint);
    CREATE FUNCTION world.note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO world.claims VALUES (NEW.id, NEW.fence, NEW.revision); RETURN NULL; END $$;
    CREATE FUNCTION world.note_turn() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO world.turns VALUES (NEW.operation, NEW.fence, NEW.revision); RETURN NULL; END $$;
    CREATE TRIGGER claims AFTER UPDATE OF fence ON longrun.operations FOR EACH ROW EXECUTE FUNCTION world.note_claim();
    CREATE TRIGGER turns AFTER INSERT OR UPDATE ON longrun.operation_journal
        FOR EACH ROW EXECUTE FUNCTION world.note_turn()";

impl World {
    /// Has it written down who is given an operation, and who writes to it. After the tables of the store are there.
    pub(super) async fn watch(address: &str) -> Result<()> {
        Self::reach(address).await?.client.batch_execute(WATCH).await.context("the store cannot be watched")
    }

    /// Makes an empty one.
    pub(super) async fn make(address: &str) -> Result<()> {
        Self::reach(address).await?.client.batch_execute(TABLES).await.context("the world cannot be made")
    }

    pub(super) async fn reach(address: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { client })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.client.is_closed()
    }

    /// Makes the effect of a step be there, or not. Doing it twice is doing it once.
    pub(super) async fn set(
        &self,
        operation: &str,
        step: i32,
        token: FencingToken,
        there: bool,
    ) -> Result<Told, tokio_postgres::Error> {
        let (epoch, attempt) = (i64::try_from(token.epoch.0).unwrap_or(i64::MAX), i64::from(token.attempt));
        let text = "INSERT INTO world.effects AS e (operation, step, epoch, attempt, there)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (operation, step) DO UPDATE
            SET epoch = excluded.epoch, attempt = excluded.attempt, there = excluded.there
            WHERE (e.epoch, e.attempt) <= (excluded.epoch, excluded.attempt)";
        let changed = self.client.execute(text, &[&operation, &step, &epoch, &attempt, &there]).await?;
        if changed == 1 {
            return Ok(Told::Done);
        }
        let text = "INSERT INTO world.refused VALUES ($1, $2, $3, $4)";
        self.client.execute(text, &[&operation, &step, &epoch, &attempt]).await?;
        Ok(Told::Late)
    }

    /// Rows of a question.
    pub(super) async fn ask(&self, text: &str) -> Result<Vec<tokio_postgres::Row>> {
        Ok(self.client.query(text, &[]).await?)
    }
}
