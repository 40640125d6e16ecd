//! SIGKILL at every step of an order, and at random moments of many: the same command, given again, goes on with the order that was cut off, and so does a `serve` that keeps a list of
//! certificates. In the end there is one certificate from one order, and no value is left.
//!
//! The steps are found by counting, not by hand: the process is killed before and after the N-th time that it makes the disk keep something, or says something to somebody, for each N until nothing
//! is left to be killed at.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use acmegate_tests::{
    acmegate::command,
    certificates::assert_issued,
    dns,
    killpoint::{self, Calls},
    process::Process,
    read,
    wait::{LIMIT, until},
    world::{World, ZONE},
    write,
};
use tokio::time::sleep;

/// No order has so many steps: a loop that gets there counts something else.
const MOST_STEPS: usize = 400;

/// One world for many orders, each by processes of its own on one data folder.
struct Orders {
    world: World,
    names: Vec<String>,
    /// Orders that the authority has made by now.
    made: usize,
}

impl Orders {
    /// `proved` says whether the authority looks at the values. It does not where a kill would be told from a mistake by nothing else: the DNS server dies with the process.
    async fn start(proved: bool) -> Self {
        let world = World::builder().without_serve().ca(move |options| {
            let options = options.every_nonce().no_reuse();
            if proved { options } else { options.variable("PEBBLE_VA_ALWAYS_VALID", "1") }
        });
        let mut orders = Self { world: world.start().await, names: Vec::new(), made: 0 };
        // The account is there from now on.
        let name = orders.next_name();
        orders.finish(&name).await;
        orders
    }

    fn next_name(&mut self) -> String {
        let name = format!("n{}.{ZONE}", self.names.len());
        self.names.push(name.clone());
        name
    }

    /// Gives the command again, unless the certificate was in its place when the kill came.
    async fn finish_killed(&mut self, name: &str) -> usize {
        let out = self.folder();
        if ["privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"].iter().all(|file| out.join(file).exists()) {
            assert_issued(&out, &self.world.ca, &[name]).await;
            return self.made();
        }
        self.finish(name).await
    }

    /// Gives the command, and looks at what came of it; gives the number of orders since the last time.
    async fn finish(&mut self, name: &str) -> usize {
        let issued = self.world.acmegate.issue(&[name]).run().await;
        issued.succeeded();
        assert_issued(issued.folder(), &self.world.ca, &[name]).await;
        self.made()
    }

    fn made(&mut self) -> usize {
        let made = self.world.ca.log().matches("Added order ").count();
        made - std::mem::replace(&mut self.made, made)
    }

    fn folder(&self) -> PathBuf {
        self.world.acmegate.folder().join(format!("cut-off-{}", self.names.len()))
    }

    /// `acmegate issue NAME`, killed at a step; false if it came to its end before.
    async fn killed_at(&self, name: &str, calls: Calls, step: usize) -> bool {
        let (out, count) = (self.folder(), self.folder().with_extension("count"));
        let mut command = issue(name, self.world.acmegate.config(), &out);
        killpoint::arm(&mut command, calls, step, &count);
        let output = Process::spawn("acmegate issue", command).output(LIMIT).await;
        if output.code.is_some() {
            output.succeeded();
            assert!(killpoint::passed(&count) < step, "it was to be killed at step {step}");
        }
        output.code.is_none()
    }

    /// No value is left of any of the orders.
    async fn assert_clean(mut self) {
        self.world.acmegate.start().await;
        for name in &self.names {
            let owner = format!("_acme-challenge.{name}");
            assert_eq!(dns::txt(self.world.acmegate.dns(), &owner).await, BTreeSet::new(), "{owner}");
        }
        self.world.acmegate.stop().await;
    }
}

fn issue(name: &str, config: &Path, out: &Path) -> Command {
    let mut command = command();
    command.args(["issue", name, "--directory", "testca", "--config"]).arg(config).arg("--out").arg(out);
    command
}

/// Kills at each step in turn.
async fn at_every_step(calls: Calls, expected: Range<usize>) {
    let mut orders = Orders::start(false).await;
    for step in 1..MOST_STEPS {
        let name = orders.next_name();
        let killed = orders.killed_at(&name, calls, step).await;
        if !killed {
            assert!(expected.contains(&step), "{} steps of {calls:?}", step - 1);
            return orders.assert_clean().await;
        }
        let made = orders.finish_killed(&name).await;
        assert_eq!(made, 1, "killed at step {step} of {calls:?}: one order for one certificate");
    }
    panic!("{MOST_STEPS} steps of {calls:?}, and no end");
}

#[tokio::test]
async fn killed_before_and_after_each_write_to_the_disk() {
    at_every_step(Calls::Sync, 8..60).await;
}

#[tokio::test]
async fn killed_before_and_after_each_word_to_anybody() {
    at_every_step(Calls::Send, 20..MOST_STEPS).await;
}

/// `serve` with one certificate in its list, killed at each step from its start to its end, and started again: the order is gone on with, and what was issued is deployed.
async fn list_at_every_step(calls: Calls, expected: Range<usize>) {
    let mut orders = Orders::start(false).await;
    let bare = read(orders.world.acmegate.config());
    for step in 1..MOST_STEPS {
        let name = orders.next_name();
        let (out, count) = (orders.folder(), orders.folder().with_extension("count"));
        let list = format!("{bare}certificates:\n  - {{ name: {name}, names: [{name}], store: [{{ files: {out:?} }}] }}\n");
        write(orders.world.acmegate.config(), &list);
        let mut serve = command();
        serve.arg("serve").arg("--config").arg(orders.world.acmegate.config());
        killpoint::arm(&mut serve, calls, step, &count);
        let serve = Process::spawn("acmegate serve", serve);
        until("its end, or the certificate", async || {
            if serve.is_running() && !out.join("fullchain.pem").exists() { Err("neither") } else { Ok(()) }
        })
        .await;
        serve.terminate();
        let killed = serve.output(LIMIT).await.code.is_none();
        orders.world.acmegate.start().await;
        until("the certificate", async || {
            let shown = orders.world.acmegate.run(&["certificates", "show", &name]).await.stdout;
            if shown.starts_with(&format!("{name}: valid")) { Ok(()) } else { Err(shown) }
        })
        .await;
        assert_issued(&out, &orders.world.ca, &[&name]).await;
        let owner = format!("_acme-challenge.{name}");
        assert_eq!(dns::txt(orders.world.acmegate.dns(), &owner).await, BTreeSet::new(), "{owner}");
        orders.world.acmegate.stop().await;
        assert_eq!(orders.made(), 1, "killed at step {step} of {calls:?}: one order for one certificate");
        if !killed {
            assert!(killpoint::passed(&count) < step, "it was to be killed at step {step}");
            assert!(expected.contains(&step), "{} steps of {calls:?}", step - 1);
            return;
        }
    }
    panic!("{MOST_STEPS} steps of {calls:?}, and no end");
}

#[tokio::test]
async fn a_list_killed_before_and_after_each_write_to_the_disk() {
    list_at_every_step(Calls::Sync, 12..100).await;
}

#[tokio::test]
async fn a_list_killed_before_and_after_each_word_to_anybody() {
    list_at_every_step(Calls::Send, 20..MOST_STEPS).await;
}

/// 200 times, with real proofs. An order whose value went with its process before the authority had seen it is lost for good, and the next one has to be a new one.
#[tokio::test]
async fn killed_at_random_moments() {
    let rounds: u32 =
        std::env::var("ACMEGATE_ORDER_KILL_ROUNDS").map_or(200, |rounds| rounds.parse().expect("ACMEGATE_ORDER_KILL_ROUNDS is a number"));
    let mut orders = Orders::start(true).await;
    let begun = Instant::now();
    let name = orders.next_name();
    orders.finish(&name).await;
    let usual = begun.elapsed();
    let mut killed = 0;
    for round in 0..rounds {
        let name = orders.next_name();
        let out = orders.folder();
        let process = Process::spawn("acmegate issue", issue(&name, orders.world.acmegate.config(), &out));
        // Any moment is as good as another: the rounds are spread over the time that an order takes.
        sleep(usual.mul_f64(f64::from(round * 37 % 100) / 100.0)).await;
        let running = process.is_running();
        process.kill();
        process.ended().await;
        if running {
            killed += 1;
            let made = orders.finish_killed(&name).await;
            assert!(made <= 2, "{made} orders in round {round}");
        } else {
            orders.made();
        }
    }
    assert!(killed * 2 > rounds, "only {killed} of {rounds} were cut off");
    orders.assert_clean().await;
}
