//! SIGKILL at a random moment while clients update: whatever was acknowledged is answered after the next start.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use acmegate_tests::{
    acmedns::{Account, register, update, value},
    acmegate::{Acmegate, Config},
    dns,
    wait::bounded,
};
use futures_util::future::join_all;
use reqwest::Client;
use tokio::{sync::watch, task::JoinSet};

/// How many clients update at the same time, each on an account of its own.
const CLIENTS: u64 = 32;

/// Values kept for one account: acmegate's default.
const KEPT: usize = 8;

/// The kill comes after at most this many acknowledged updates of a round.
const LONGEST: u64 = 600;

/// One client's account and what it knows of its values over all rounds.
struct Writer {
    number: u64,
    account: Account,
    /// Acknowledged, oldest first.
    acknowledged: Vec<String>,
    /// Sent when the process died, and never answered: each may be there or not.
    unknown: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let rounds: u64 =
        std::env::var("ACMEGATE_CRASH_ROUNDS").map_or(50, |rounds| rounds.parse().expect("ACMEGATE_CRASH_ROUNDS is a number"));
    let localhost = Ipv4Addr::LOCALHOST;
    let config = Config::new().dns((localhost, 0).into()).zone("auth.example.org", &[("ns1", localhost.into())]).acmedns();
    let mut acmegate = Acmegate::started(config).await;
    let (client, base) = (Client::new(), acmegate.url("acmedns", ""));
    let mut writers = Vec::new();
    for number in 0..CLIENTS {
        let account = register(&client, &base).await.expect("it registers");
        writers.push(Writer { number, account, acknowledged: Vec::new(), unknown: Vec::new() });
    }
    let counter = Arc::new(AtomicU64::new(0));
    for round in 0..rounds {
        writers = update_until_killed(&mut acmegate, writers, &counter).await;
        acmegate.start().await;
        let answers = join_all(writers.iter().map(|writer| dns::txt(acmegate.dns(), &writer.account.fulldomain))).await;
        for (writer, answer) in writers.iter_mut().zip(answers) {
            writer.judge(round, &answer);
        }
    }
    let total: usize = writers.iter().map(|writer| writer.acknowledged.len()).sum();
    eprintln!("{rounds} rounds, {total} acknowledged updates");
    assert!(total as u64 >= rounds, "each round acknowledged something");
}

/// Lets every writer update until the process is killed at a random count of acknowledgements.
async fn update_until_killed(acmegate: &mut Acmegate, writers: Vec<Writer>, counter: &Arc<AtomicU64>) -> Vec<Writer> {
    let base = acmegate.url("acmedns", "");
    let (acknowledged, mut count) = watch::channel(0_u64);
    let acknowledged = Arc::new(acknowledged);
    let mut clients = JoinSet::new();
    for mut writer in writers {
        // A client of its own is a connection of its own: real clients do not share one.
        let (client, base, counter, acknowledged) = (Client::new(), base.clone(), Arc::clone(counter), Arc::clone(&acknowledged));
        clients.spawn(async move {
            loop {
                let txt = value(counter.fetch_add(1, Ordering::Relaxed) * CLIENTS + writer.number);
                if update(&client, &base, &writer.account, &txt).await.is_err() {
                    writer.unknown.push(txt);
                    return writer;
                }
                writer.acknowledged.push(txt);
                acknowledged.send_modify(|count| *count += 1);
            }
        });
    }
    let moment = 1 + uuid::Uuid::new_v4().as_u64_pair().0 % LONGEST;
    bounded("the moment of the kill", count.wait_for(|count| *count >= moment)).await.expect("the writers live");
    acmegate.kill();
    bounded("the writers to notice", clients.join_all()).await
}

impl Writer {
    /// The newest values stand, eight of them; an unanswered update may have pushed out as many of the oldest as there were.
    fn judge(&mut self, round: u64, answer: &BTreeSet<String>) {
        let landed = self.unknown.iter().filter(|txt| answer.contains(*txt)).count();
        let name = &self.account.fulldomain;
        for txt in self.acknowledged.iter().rev().take(KEPT - landed.min(KEPT)) {
            assert!(answer.contains(txt), "round {round}: {txt} of {name} was acknowledged and is lost; it answers {answer:?}");
        }
        for txt in answer {
            assert!(self.acknowledged.contains(txt) || self.unknown.contains(txt), "round {round}: nobody set {txt} of {name}");
        }
        assert!(answer.len() <= KEPT, "round {round}: {name} answers more than the newest {KEPT} values");
        // One that landed is as good as acknowledged from here on, and older than what comes next.
        let (landed, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unknown).into_iter().partition(|txt| answer.contains(txt));
        self.acknowledged.extend(landed);
        drop(lost);
    }
}
