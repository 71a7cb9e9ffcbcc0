//! A node: an engine that is asked over its standard input.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use longrun::postgres::{PostgresOptions, PostgresStore};
use longrun::{Call, Caller, Engine, IdempotencyKey, OperationId, OperationQuery, PageRequest};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::work::{Make, Reach, Request, Shape, Touch};

#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// The address of the database, through a proxy.
    #[arg(long)]
    store: String,
    /// The address of the world.
    #[arg(long)]
    world: String,
    #[arg(long)]
    lease_millis: u64,
}

/// What a node is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Submit { key: String, request: Request },
    Cancel { id: String },
    Wait { id: String, millis: u64 },
    List { token: String },
}

/// A question with its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) ask: Ask,
}

/// What a node says of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) done: bool,
    /// The name of the code of its error.
    pub(super) error: Option<String>,
    pub(super) response: bool,
}

/// An answer, to the question of the same number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) number: u64,
    /// What was asked for: one operation, or a page of them; or why not.
    pub(super) told: Result<Told, String>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    Operation(Shown),
    Page(Vec<Shown>, String),
}

/// Answers until its input ends.
pub(super) async fn run(options: Options) -> Result<()> {
    let lease = Duration::from_millis(options.lease_millis);
    let store = PostgresOptions::new(&options.store).lease(lease).statement_timeout(Duration::from_secs(3));
    let store =
        PostgresStore::open(store.connect_timeout(Duration::from_secs(2))).await.context("no store")?;
    let world = Arc::new(Reach::new(options.world));
    let builder = Engine::builder(store).kind(Make).step(Touch(world)).step(Shape);
    let engine = builder.start().await.context("no engine")?;
    let (answers, mut to_write) = mpsc::channel::<Answer>(1024);
    let writing = tokio::spawn(async move {
        let mut output = tokio::io::stdout();
        output.write_all(b"ready\n").await?;
        while let Some(answer) = to_write.recv().await {
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            output.write_all(&line).await?;
            output.flush().await?;
        }
        anyhow::Ok(())
    });
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = input.next_line().await? {
        let Question { number, ask } = serde_json::from_str(&line)?;
        let (engine, answers) = (engine.clone(), answers.clone());
        tokio::spawn(async move {
            let told = answer(&engine, ask).await.map_err(|error| format!("{error:#}"));
            _ = answers.send(Answer { number, told }).await;
        });
    }
    drop(answers);
    writing.abort();
    engine.shutdown(Duration::from_secs(2)).await;
    Ok(())
}

async fn answer(engine: &Engine, ask: Ask) -> Result<Told> {
    let caller = Caller::new("chaos")?;
    let operation = match ask {
        Ask::Submit { key, request } => {
            engine.submit::<Make>(&request, Call::by(caller).key(IdempotencyKey::new(key)?)).await?
        }
        Ask::Cancel { id } => engine.cancel(id.parse::<OperationId>()?, &caller).await?,
        Ask::Wait { id, millis } => engine.wait(id.parse()?, Duration::from_millis(millis)).await?,
        Ask::List { token } => {
            let page = PageRequest { size: 50, token };
            let page = engine.list_operations(&OperationQuery::All, &page).await?;
            return Ok(Told::Page(page.items.iter().map(Shown::of).collect(), page.next_token));
        }
    };
    Ok(Told::Operation(Shown::of(&operation)))
}

impl Shown {
    fn of(operation: &longrun::Operation) -> Self {
        Self {
            id: operation.id().to_string(),
            done: operation.done(),
            error: operation.error().map(|error| error.code().name().to_owned()),
            response: operation.response().is_some(),
        }
    }
}
