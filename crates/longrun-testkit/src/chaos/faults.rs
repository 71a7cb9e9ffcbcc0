//! What fails, and how often it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use longrun_postgres::testing::PrivateServer;
use tokio::sync::Mutex;

use super::Options;
use super::process::Node;
use super::proxy::Proxy;
use crate::crash::dice::Dice;

/// All that has to strike.
const FAULTS: [&str; 4] = [KILLED, PAUSED, CRASHED, CUT];
const KILLED: &str = "a node was killed";
const PAUSED: &str = "a node was paused beyond its lease";
const CRASHED: &str = "the database crashed";
const CUT: &str = "a connection was cut after a statement was sent";

pub(super) struct Faults {
    server: Arc<Mutex<PrivateServer>>,
    nodes: Vec<Arc<Node>>,
    proxies: Vec<Proxy>,
    lease: Duration,
    struck: BTreeMap<&'static str, u64>,
    /// Nodes that have ended although nobody has killed them, each time.
    ended: Vec<usize>,
}

impl Faults {
    pub(super) fn new(
        options: &Options,
        server: Arc<Mutex<PrivateServer>>,
        nodes: &[Arc<Node>],
        proxies: Vec<Proxy>,
    ) -> Self {
        let lease = Duration::from_millis(options.lease_millis);
        Self { server, nodes: nodes.to_vec(), proxies, lease, struck: BTreeMap::new(), ended: Vec::new() }
    }

    /// A quiet while, and then one fault to its end.
    pub(super) async fn strike(&mut self, dice: &mut Dice) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(dice.within(100..1500))).await;
        for node in &self.nodes {
            if node.ended_by_itself().await {
                self.ended.push(node.number);
                node.start().await?;
            }
        }
        let place = usize::try_from(dice.within(0..self.nodes.len() as u64)).unwrap_or_default();
        let node = Arc::clone(&self.nodes[place]);
        // Each once, and then as it comes.
        let first = FAULTS.iter().find(|fault| !self.struck.contains_key(*fault));
        let drawn = match dice.within(0..10) {
            0..3 => KILLED,
            3..6 => PAUSED,
            6 => CRASHED,
            _ => CUT,
        };
        let fault = first.copied().unwrap_or(drawn);
        match fault {
            KILLED => {
                node.kill().await;
                tokio::time::sleep(Duration::from_millis(dice.within(0..3000))).await;
                node.start().await?;
            }
            PAUSED => {
                node.pause(true).await;
                let beyond = self.lease.mul_f64(2.5) + Duration::from_millis(dice.within(0..1000));
                tokio::time::sleep(beyond).await;
                node.pause(false).await;
            }
            CRASHED => self.crash_database(Duration::from_millis(dice.within(0..3000))).await?,
            _ => self.proxies[place].cut(dice.within(1..6)),
        }
        *self.struck.entry(fault).or_default() += 1;
        Ok(())
    }

    async fn crash_database(&self, away: Duration) -> Result<()> {
        let server = Arc::clone(&self.server);
        let crash = move || {
            let mut server = server.blocking_lock();
            server.crash();
            std::thread::sleep(away);
            server.begin()
        };
        let begun = tokio::task::spawn_blocking(crash).await?;
        begun.map_err(anyhow::Error::msg).context("the database does not come back")
    }

    /// No more faults; all that was away is there again.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.proxies.iter().for_each(Proxy::rest);
        let cuts = self.proxies.iter().map(Proxy::cuts).sum();
        self.struck.insert(CUT, cuts);
        Ok(())
    }

    /// Says what struck, and gives what is wrong: what did not, and what nobody did.
    pub(super) fn report(&self) -> Vec<String> {
        let struck = |fault: &&str| self.struck.get(fault).copied().unwrap_or_default();
        for fault in &FAULTS {
            println!("  {:>6}  {fault}", struck(fault));
        }
        let missing = FAULTS.iter().filter(|fault| struck(fault) == 0);
        let ended = self.ended.iter().map(|node| format!("node {node} has ended by itself"));
        missing.map(|fault| format!("the fault \"{fault}\" never struck")).chain(ended).collect()
    }
}
